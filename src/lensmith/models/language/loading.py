"""Language models from a folder, a name on the Hub, or a GGUF file.

transformers reads a GGUF file weight by weight, which takes half a minute for 135 million weights; therefore the result
is kept in the cache folder as safetensors, under the hash of the file's content, and read from there the next time.
"""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_file
from lensmith.models.checkpoints.folder import without_progress_bar

GGUF_SUFFIX = ".gguf"
_CONVERSION = 1
"""Counts up where the converted form changes, so that older ones are not read."""


class LanguageModel(NamedTuple):
    """A causal language model, in evaluation mode, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_language_model(
    source: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu", cache_dir: Path | None = None
) -> LanguageModel:
    """The model and the tokenizer in a folder, in a GGUF file, or under a name on the Hub.

    Raises InputError where there is none, or it is no causal language model that a cache of keys and values serves.
    """
    path = Path(source)
    if path.suffix == GGUF_SUFFIX:
        path = gguf_as_folder(path, cache_dir)
    local = path.is_dir()
    name = str(path) if local else str(source)
    with without_progress_bar():
        try:
            config = AutoConfig.from_pretrained(name, local_files_only=local)
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, local_files_only=local)
        except Exception as error:  # what reads a damaged or foreign file raises whatever it meets there
            raise InputError(
                f"{source}: no language model can be loaded",
                expected="a folder with config.json, weights and tokenizer, a GGUF file, or a name on the Hub",
                actual=_first_line(error),
            ) from error
    refuse_recurrent(model, str(config.model_type))
    return LanguageModel(model=model.eval().to(device), tokenizer=tokenizer)


def refuse_recurrent(model: PreTrainedModel, kind: str) -> None:
    """Raises InputError where the model's memory of a text cannot be cut at any token, as keys and values can."""
    layer_types = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    others = layer_types - {"full_attention", "sliding_attention", "chunked_attention"}
    if getattr(model, "_is_stateful", False) or others:
        raise InputError(
            "this kind of model cannot be served",
            expected="a transformer whose layers are attention",
            actual=f"{kind} ({', '.join(sorted(others)) or 'recurrent'})",
        )


def gguf_as_folder(path: Path, cache_dir: Path | None = None) -> Path:
    """The folder in the cache that holds the file's weights and tokenizer in transformers' form; made if need be."""
    if not path.is_file():
        raise InputError("there is no such GGUF file", actual=path)
    folder = (cache_dir or default_cache_dir()) / "gguf" / f"{sha256_of_file(path)}-{_CONVERSION}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".converting-", dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        _convert(path, made)
        # Renamed as a whole: who comes at the same time finds all of it or nothing.
        with contextlib.suppress(OSError):
            made.rename(folder)
    if not (folder / "config.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError("the converted model cannot be kept", actual=folder, hint="look at the room in that folder")
    return folder


def _convert(path: Path, folder: Path) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except ImportError as error:
        raise InputError(
            "GGUF files need the package gguf", actual=_first_line(error), hint="pip install gguf"
        ) from error
    except Exception as error:  # as above
        raise InputError("transformers cannot read this GGUF file", actual=_first_line(error)) from error
    # The weights are plain float32 now, but transformers refuses to save what came from a quantized file.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
