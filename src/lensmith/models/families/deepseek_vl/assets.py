"""What lies beside the weights, as each layout wants it: processor, tokenizer and generation settings.

Everything follows from the model's configuration and the tokenizer. Two things differ from what transformers' converter
writes. `tokenizer.json` says itself that a text begins with the token that begins it: the published one leaves that to
the class `LlamaTokenizerFast`, and transformers 5 does not use that class for it, so the token would be lost. And the
chat template writes the original's prompts: a system message replaces the default one, and a message may be a string.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from lensmith.core.files import write_atomic
from lensmith.models.checkpoints.folder import PROCESSOR, read_json
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl.checkpoint import PublishedCheckpoint
from lensmith.models.families.deepseek_vl.config import IMAGE_TOKEN, parts_of
from lensmith.models.families.deepseek_vl.layouts import CheckpointLayout, Variant
from lensmith.models.families.deepseek_vl.loading import GENERATION, PREPROCESSOR, published_values, read_processor
from lensmith.models.families.deepseek_vl.prompt import DEFAULT_SYSTEM
from lensmith.models.families.deepseek_vl.tokenizer import load_tokenizer
from lensmith.models.towers.hybrid import HIGH_MEAN, HIGH_STD, LOW_MEAN, LOW_STD

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
_SENTENCEPIECE = "tokenizer.model"
_BICUBIC, _BILINEAR = 3, 2
_MIN_SIDE_PX = 14
_ORIGINALS, _HIGH = "VLMImageProcessor", "high_res_"

CHAT_TEMPLATE = (
    "{%- macro said(message) -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part is string -%}{{ part }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}"
    "{%- elif part['type'] in ('image', 'image_url') -%}{{ '" + IMAGE_TOKEN + "' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}"
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set system, turns = said(messages[0]) | trim, messages[1:] -%}"
    "{%- else -%}"
    "{%- set system, turns = '" + DEFAULT_SYSTEM + "', messages -%}"
    "{%- endif -%}"
    "{{- system + '\n\n' if system else '' -}}"
    "{%- for message in turns -%}"
    "{%- set text = said(message) | trim -%}"
    "{{- message['role'] | capitalize + ':' -}}"
    "{%- if text -%}"
    "{{- ' ' + text -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}"
    "{%- elif not loop.last or add_generation_prompt -%}{{- '\n\n' -}}"
    "{%- endif -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{{- 'Assistant:' if add_generation_prompt else '' -}}"
)
"""Turns of "User: ..." and "Assistant: ..."; two newlines after the first, the end token after the second."""


def write_assets(checkpoint: PublishedCheckpoint, out: Path, layout: CheckpointLayout) -> bool:
    """Writes into `out` what a model of this layout has beside weights and `config.json`; False: no tokenizer is there.

    Raises CheckpointError where the checkpoint's own files cannot be read.
    """
    folder, config = checkpoint.folder, checkpoint.config
    _write(out / GENERATION, _generation(checkpoint, layout))
    has_tokenizer = (folder / TOKENIZER).is_file()
    if layout is CheckpointLayout.LENSMITH:
        if has_tokenizer:
            read_processor(checkpoint).save_pretrained(out)
        return has_tokenizer
    if has_tokenizer:
        _write_tokenizer(folder, out, layout, parts_of(config).variant)
    is_hybrid = parts_of(config).variant is Variant.HYBRID
    image = _with_sources_own(image_processor_values(config, layout), folder, is_hybrid=is_hybrid)
    processor = processor_values(config, layout)
    if layout is CheckpointLayout.TRANSFORMERS:
        _write(out / PROCESSOR, {"image_processor": image, **processor})
    else:
        _write(out / PREPROCESSOR, image | {"processor_class": processor["processor_class"]})
        _write(out / PROCESSOR, processor)
    if layout is not CheckpointLayout.ORIGINAL:
        write_atomic(out / TEMPLATE, CHAT_TEMPLATE)
    return has_tokenizer


def image_processor_values(config: VisionLanguageConfig, layout: CheckpointLayout) -> dict[str, Any]:
    """How pictures become pixels, in the words of the original's or transformers' image processor."""
    parts = parts_of(config)
    low_px, sam = parts.siglip.native_px, parts.sam
    is_hybrid = sam is not None
    common = {"min_size": _MIN_SIDE_PX, "rescale_factor": 1 / 255}
    if layout is CheckpointLayout.ORIGINAL:
        # 7B is normalised inside its towers.
        mean, std = (HIGH_MEAN, HIGH_STD) if is_hybrid else (LOW_MEAN, LOW_STD)
        return common | {
            "background_color": _background(mean),
            "do_normalize": not is_hybrid,
            "image_mean": list(mean),
            "image_processor_type": _ORIGINALS,
            "image_size": low_px if sam is None else sam.image_px,
            "image_std": list(std),
        }
    values = common | {
        "background_color": _background(LOW_MEAN),
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(LOW_MEAN),
        "image_processor_type": f"{parts.variant.in_transformers}ImageProcessor",
        "image_std": list(LOW_STD),
        "resample": _BILINEAR if is_hybrid else _BICUBIC,
        "size": {"height": low_px, "width": low_px},
    }
    if sam is None:
        return values
    return values | {
        "high_res_background_color": _background(HIGH_MEAN),
        "high_res_image_mean": list(HIGH_MEAN),
        "high_res_image_std": list(HIGH_STD),
        "high_res_resample": _BICUBIC,
        "high_res_size": {"height": sam.image_px, "width": sam.image_px},
    }


def _with_sources_own(values: dict[str, Any], folder: Path, *, is_hybrid: bool) -> dict[str, Any]:
    """`values`, with what the source's file says of the same pictures, in its own words or in the other code's."""
    source = published_values(folder)
    if (source.get("image_processor_type") == _ORIGINALS) == (values["image_processor_type"] == _ORIGINALS):
        theirs = {name: name for name in values if name != "image_processor_type"}
    else:
        # Of a hybrid's two pictures the original's file means the large one.
        ours, high = (_HIGH if _HIGH + "image_mean" in one else "" for one in (values, source))
        theirs = {"min_size": "min_size"} | {ours + name: high + name for name in ("image_mean", "image_std")}
        if not is_hybrid:
            theirs["do_normalize"] = "do_normalize"
    taken = {own: source[name] for own, name in theirs.items() if source.get(name) is not None}
    backgrounds = {
        name.replace("image_mean", "background_color"): _background(mean)
        for name, mean in taken.items()
        if name.endswith("image_mean")
    }
    return values | taken | backgrounds


def processor_values(config: VisionLanguageConfig, layout: CheckpointLayout) -> dict[str, Any]:
    """What the processor's own file says, without the image processor."""
    parts = parts_of(config)
    if layout is CheckpointLayout.ORIGINAL:
        return {
            "add_special_token": False,
            "ignore_id": -100,
            "image_tag": IMAGE_TOKEN,
            "mask_prompt": True,
            "num_image_tokens": parts.tokens_per_picture,
            "processor_class": "VLChatProcessor",
            "sft_format": "deepseek",
        }
    return {
        "num_image_tokens": parts.tokens_per_picture,
        "processor_class": f"{parts.variant.in_transformers}Processor",
    }


def _write_tokenizer(folder: Path, out: Path, layout: CheckpointLayout, variant: Variant) -> None:
    tokenizer = load_tokenizer(folder)
    content = read_json(folder / TOKENIZER)
    content["post_processor"] = json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"]
    _write(out / TOKENIZER, content)
    _write(out / TOKENIZER_CONFIG, _tokenizer_values(tokenizer, layout, variant))
    if (folder / _SENTENCEPIECE).is_file():
        write_atomic(out / _SENTENCEPIECE, (folder / _SENTENCEPIECE).read_bytes())


def _tokenizer_values(tokenizer: PreTrainedTokenizerFast, layout: CheckpointLayout, variant: Variant) -> dict[str, Any]:
    values = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": tokenizer.bos_token,
        "clean_up_tokenization_spaces": False,
        "eos_token": tokenizer.eos_token,
        "model_max_length": tokenizer.model_max_length,
        "pad_token": tokenizer.pad_token,
        "padding_side": "left",
        "tokenizer_class": "TokenizersBackend" if layout is CheckpointLayout.TRANSFORMERS else "LlamaTokenizerFast",
        "unk_token": None,
    }
    if layout is CheckpointLayout.ORIGINAL:
        return values | {"processor_class": "VLChatProcessor"}
    return values | {
        "extra_special_tokens": {"image_token": IMAGE_TOKEN},
        "image_token": IMAGE_TOKEN,
        "processor_class": f"{variant.in_transformers}Processor",
    }


def _generation(checkpoint: PublishedCheckpoint, layout: CheckpointLayout) -> dict[str, Any]:
    """The checkpoint's own settings; the special tokens are the tokenizer's."""
    path = checkpoint.folder / GENERATION
    values = dict(read_json(path)) if path.is_file() else {}
    for name in ("_from_model_config", "transformers_version"):
        values.pop(name, None)
    language = checkpoint.config.language
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(language, name) is not None:
            values[name] = getattr(language, name)
    if layout is CheckpointLayout.LENSMITH:
        values["suppress_tokens"] = [checkpoint.config.image_token_id]
    elif values.get("suppress_tokens") == [checkpoint.config.image_token_id]:
        del values["suppress_tokens"]
    return values


def _background(mean: Sequence[float]) -> list[int]:
    return [int(255 * value) for value in mean]


def _write(path: Path, values: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
