"""Writes the goldens of DeepSeek-VL's towers and projectors: what the original repository's own code computes.

    pip install --no-deps --target PACKAGES timm==1.0.22 einops==0.8.2
    python scripts/deepseek_tower_goldens.py ORIGINAL PACKAGES tests/golden

ORIGINAL is a checkout of github.com/deepseek-ai/DeepSeek-VL. Its classes run at small sizes, which are entered in its
own tables of models; weights and pictures follow from names (`values_of`), so that only outputs are kept, and of these
every 31st token. Three packages are stubbed: `torchvision` (`Resize` and `Normalize`, by what torchvision does with
a tensor; the rest, which timm imports and does not use here, by empty names), `attrdict` (imported, not used here) and
the `__init__` of the original's packages. timm and einops are real.
"""

import enum
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HIGH_PX, LOW_PX, PATCH_PX = 128, 96, 4
WIDTH = 16  # of a token of either tower; the projector takes one number for both
SAM = {
    "width": 12,
    "layers": 4,
    "heads": 2,
    "patch_size": PATCH_PX,
    "prompt_embed_dim": WIDTH // 4,
    "global_attn_indexes": [1, 3],
    "downsample_channels": (WIDTH // 2, WIDTH),
}
SIGLIP = {"width": WIDTH, "layers": 3, "heads": 2, "patch_size": PATCH_PX, "image_size": LOW_PX, "mlp_ratio": 4}
LANGUAGE_WIDTH = 24
CLIP = {"pixel_mean": (0.48145466, 0.4578275, 0.40821073), "pixel_std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"pixel_mean": (0.5,) * 3, "pixel_std": (0.5,) * 3}
EVERY = 31


def values_of(name: str, shape: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Numbers from -0.4 to 0.4 that follow from a name; around 1 for the weight of a norm."""
    uniform = np.random.default_rng(zlib.crc32(name.encode())).random(tuple(shape))
    is_norm = len(shape) == 1 and name.endswith("weight")
    return ((uniform - 0.5) * 0.8 + is_norm).astype(np.float32)


def pictures_of(name: str, count: int, side_px: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise from 0 to 1 (N, 3, px, px) that follows from a name."""
    return np.random.default_rng(zlib.crc32(name.encode())).random((count, 3, side_px, side_px)).astype(np.float32)


@torch.no_grad()
def main() -> None:
    root, packages, out = map(Path, sys.argv[1:4])
    clip_encoder, projector = load_original(root, packages)
    hybrid = filled(
        clip_encoder.HybridVisionTower(
            high_res_cfg={"model_name": "sam_small", "image_size": HIGH_PX, "select_feature": "same", **CLIP},
            low_res_cfg={"model_name": "siglip_small", "image_size": LOW_PX, "select_layer": -1, **HALF},
            concat_type="tuple",
        )
    )
    pixels = torch.from_numpy(pictures_of("pictures", 2, HIGH_PX))
    goldens = {"check": values_of("check", (8,)), **steps_of(hybrid, pixels)}
    high, low = hybrid(pixels)
    goldens |= {"high": high, "low": low, "small": hybrid.resize(pixels)[:, :, ::EVERY, ::EVERY]}
    for kind, depth in [("low_high_hybrid_split_mlp_gelu", 2), ("low_high_hybrid_split_mlp_gelu", 3), ("mlp_gelu", 2)]:
        mixer = filled(projector.MlpProjector(Settings(projector_type=kind, depth=depth)))
        goldens[f"projector.{kind}.{depth}"] = mixer((high, low) if "hybrid" in kind else low)
    rough = hybrid.bfloat16()(pixels.bfloat16())
    goldens |= {"high.bfloat16": rough[0].float(), "low.bfloat16": rough[1].float()}
    names = [f"{name} {tuple(value.shape)}" for name, value in hybrid.state_dict().items()]
    arrays = {name: shortened(np.asarray(value)) for name, value in goldens.items()}
    file = out / "deepseek_vl_towers.npz"
    np.savez_compressed(file, names=np.array("\n".join(names)), **arrays)
    print(f"{file}: {file.stat().st_size:,} bytes; timm {sys.modules['timm'].__version__}")


class Settings(types.SimpleNamespace):
    """What the original's projector asks of its configuration."""

    input_dim, n_embed = WIDTH, LANGUAGE_WIDTH

    def get(self, name: str, default: Any) -> Any:
        return getattr(self, name, default)


def filled(module: nn.Module) -> nn.Module:
    for name, value in module.state_dict().items():
        value.copy_(torch.from_numpy(values_of(name, value.shape)))
    return module.eval()


def steps_of(hybrid: Any, pixels: Tensor) -> dict[str, Tensor]:
    """What each step of both towers gives, under the original's names."""
    sam, siglip = hybrid.vision_tower_high.vision_tower, hybrid.vision_tower_low.vision_tower
    steps: dict[str, Tensor] = {}
    hooks = []
    for title, tower, parts in [
        ("sam", sam, ["patch_embed", *(f"blocks.{i}" for i in range(4)), "neck", "neck_hd"]),
        ("siglip", siglip, ["patch_embed", *(f"blocks.{i}" for i in range(3)), "norm"]),
    ]:
        for part in parts:

            def keep(_module: nn.Module, _arguments: Any, output: Tensor, name: str = f"{title}.{part}") -> None:
                steps[name] = output.movedim(1, -1) if "neck" in name else output

            hooks.append(tower.get_submodule(part).register_forward_hook(keep))
    hybrid(pixels)
    for hook in hooks:
        hook.remove()
    return {name: step.reshape(step.shape[0], -1, step.shape[-1]) for name, step in steps.items()}


def shortened(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every 31st token of (N, P, V), from another one on in each picture."""
    if values.ndim != 3 or values.shape[1] < 100:
        return values
    return np.stack([values[index, index::EVERY][: values.shape[1] // EVERY] for index in range(values.shape[0])])


def load_original(root: Path, packages: Path) -> tuple[types.ModuleType, types.ModuleType]:
    sys.path.insert(0, str(packages))
    sys.meta_path.insert(0, Torchvision())
    attrdict: Any = types.ModuleType("attrdict")
    attrdict.AttrDict = dict
    sys.modules["attrdict"] = attrdict
    for name in ("deepseek_vl", "deepseek_vl.models"):
        package: Any = types.ModuleType(name)
        package.__path__ = [str(root / name.replace(".", "/"))]
        sys.modules[name] = package
    clip_encoder, projector, sam, siglip = (
        importlib.import_module(f"deepseek_vl.models.{name}")
        for name in ("clip_encoder", "projector", "sam", "siglip_vit")
    )
    sam.SAM_MODEL_CONFIG["sam_small"] = SAM
    siglip.SigLIP_MODEL_CONFIG["siglip_small"] = SIGLIP
    return clip_encoder, projector


class Resize:
    """torchvision's for a float tensor that is square: `interpolate` in float32, and back."""

    def __init__(self, size: int, antialias: bool) -> None:
        self.settings = {"size": (size, size), "mode": "bilinear", "align_corners": False, "antialias": antialias}

    def __call__(self, pixels: Tensor) -> Tensor:
        return nn.functional.interpolate(pixels.float(), **self.settings).to(pixels.dtype)


class Normalize:
    """torchvision's: mean and deviation in the precision of the pixels."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = mean, std

    def __call__(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.as_tensor(values, dtype=pixels.dtype).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.clone().sub_(mean).div_(std)


class Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds any module of torchvision, and gives any name in it an empty class."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        is_ours = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module: Any = types.ModuleType(spec.name)
        module.__getattr__ = _empty
        if spec.name == "torchvision.transforms":
            module.Resize, module.Normalize = Resize, Normalize
        if spec.name == "torchvision.transforms.functional":  # timm tabulates its members
            module.InterpolationMode = enum.Enum("InterpolationMode", "NEAREST BILINEAR BICUBIC BOX HAMMING LANCZOS")
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _empty(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (nn.Module,), {})


if __name__ == "__main__":
    main()
