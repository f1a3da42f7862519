"""The original repository's `config.json`, read and written.

It is a partial one: sizes are behind a name (`siglip_large_patch16_384`, `sam_b_downsample`), and `language_config`
says only where it differs from what LlamaConfig takes by default, so those defaults are applied. What our model cannot
compute as the original would (another way to join towers, a norm inside the small tower alone) is refused.

Where we differ: a size that has no name in the original is written with its numbers under `sizes`, which the original
ignores; it could not have loaded such a model anyway. The placeholder's id is written too, for folders without a
tokenizer, where the original would look it up.

transformers' `config.json` of DeepSeek-VL (`deepseek_vl`, `deepseek_vl_hybrid`), read and written.

Read through transformers' own configuration classes, so that what a file leaves out takes their defaults. Written, head
and embeddings are always said to be two tensors (`tie_word_embeddings` false, outside and inside): transformers 5 takes
the outer one as true where it is left out.
"""

from collections.abc import Mapping
from typing import Any, cast

from transformers import DeepseekVLConfig, DeepseekVLHybridConfig, LlamaConfig, PreTrainedConfig, SamVisionConfig

from lensmith.core.config import from_dict, to_dict
from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.families.deepseek_vl.config import (
    BOS_TOKEN_ID,
    EOS_TOKEN_ID,
    IMAGE_TOKEN_ID,
    PUBLISHED_VOCABULARY,
    hybrid_config,
    mlp_config,
    parts_of,
)
from lensmith.models.families.deepseek_vl.layouts import CheckpointLayout, Variant
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.hybrid import HIGH_MEAN, HIGH_STD, LOW_MEAN, LOW_STD, SIGLIP_L
from lensmith.models.towers.sam import SamTowerConfig

MODEL_TYPE = "multi_modality"

_SIGLIP_SIZES = {"siglip_large_patch16_384": SIGLIP_L}
_SAM_SIZES = {"sam_b_downsample": SamTowerConfig()}
_UNNAMED = "other"
_SIZES = (
    "hidden_size intermediate_size max_position_embeddings num_attention_heads num_hidden_layers num_key_value_heads"
    " rms_norm_eps vocab_size"
).split()
_NOT_SAID = ("rope_parameters", "dtype", "transformers_version", "architectures", "tie_word_embeddings", "model_type")
_NOT_LLAMA = ("model_type", "torch_dtype", "dtype", "_attn_implementation", "_name_or_path", "architectures")


def read_original(
    values: Mapping[str, Any],
    *,
    image_token_id: int = IMAGE_TOKEN_ID,
    tied: bool = False,
    exact: Exactness = Exactness.ORIGINAL,
) -> VisionLanguageConfig:
    """From the content of a `config.json`. `tied`: head and embeddings are one tensor. Raises ConfigError."""
    language = _language(_mapping(values, "language_config"), tied)
    vision = _mapping(values, "vision_config")
    aligner = _mapping(_mapping(values, "aligner_config"), "params", "aligner_config.")
    kind, params = str(vision.get("cls", "")), _mapping(vision, "params", "vision_config.")
    depth = int(aligner.get("depth", 1))
    if "HybridVisionTower" in kind:
        _expect("vision_config.params.concat_type", params.get("concat_type", "tuple"), "tuple")
        _expect("aligner_config.params.projector_type", aligner.get("projector_type"), "low_high_hybrid_split_mlp_gelu")
        low = _tower(params, "low_res_cfg", LOW_MEAN, LOW_STD)
        high = _tower(params, "high_res_cfg", HIGH_MEAN, HIGH_STD)
        siglip = _siglip(low, "vision_config.params.low_res_cfg")
        sam = _sam(high, siglip)
        _check_widths(aligner, sam.width, language)
        _expect("the low tower's width", siglip.width, sam.width)
        return hybrid_config(sam, siglip, language, image_token_id, depth=depth, exact=exact)
    if "CLIPVisionTower" in kind:
        _expect("aligner_config.params.projector_type", aligner.get("projector_type"), "mlp_gelu")
        _expect("vision_config.params.pixel_mean", params.get("pixel_mean"), None)
        siglip = _siglip(params, "vision_config.params")
        _check_widths(aligner, siglip.width, language)
        return mlp_config(siglip, language, image_token_id, depth=depth)
    raise ConfigError("vision_config.cls: unknown", expected="CLIPVisionTower or HybridVisionTower", actual=kind)


def write_original(config: VisionLanguageConfig, dtype: str) -> dict[str, Any]:
    """The content of a `config.json` for a model of ours; `dtype` such as "bfloat16". Raises ConfigError."""
    parts = parts_of(config)
    siglip, language = parts.siglip, parts.language
    low: dict[str, Any] = {
        "image_size": siglip.native_px,
        "model_name": _name(siglip, _SIGLIP_SIZES, "siglip"),
        "select_feature": "same",
        "select_layer": -1,
    }
    if siglip not in _SIGLIP_SIZES.values():
        low["sizes"] = to_dict(siglip)
    vision: dict[str, Any] = {"cls": "CLIPVisionTower", "model_type": "vision", "params": low}
    if parts.sam is not None:
        _expect("the low tower's width", siglip.width, parts.sam.width)
        params = _hybrid_params(parts.sam, low, siglip.width)
        vision = {"cls": "HybridVisionTower", "model_type": "vision", "params": params}
    return {
        "aligner_config": {
            "cls": "MlpProjector",
            "model_type": "aligner",
            "params": {
                "depth": parts.depth,
                "input_dim": siglip.width,
                "n_embed": language.hidden_size,
                "projector_type": "mlp_gelu" if parts.variant is Variant.MLP else "low_high_hybrid_split_mlp_gelu",
            },
        },
        "architectures": ["MultiModalityCausalLM"],
        "image_token_id": config.image_token_id,
        "language_config": _llama_values(language, dtype),
        "model_type": MODEL_TYPE,
        "torch_dtype": dtype,
        "vision_config": vision,
    }


def llama_rope_theta(language: LlamaConfig) -> float:
    """The one number of plain rotary positions. Raises ConfigError where they are scaled."""
    rope = dict(language.rope_parameters or {})
    _expect("language.rope_parameters.rope_type", rope.get("rope_type", "default"), "default")
    return float(rope.get("rope_theta", 10000.0))


def _llama_values(language: LlamaConfig, dtype: str) -> dict[str, Any]:
    """As older versions of transformers read them: the sizes, and all that is not as LlamaConfig has it by default."""
    defaults = LlamaConfig().to_dict()
    values = {
        key: value
        for key, value in language.to_dict().items()
        if key in _SIZES or (key in defaults and value != defaults[key] and key not in _NOT_SAID)
    }
    old = {"rope_theta": llama_rope_theta(language), "tie_word_embeddings": False, "torch_dtype": dtype}
    return {"model_type": "llama", **values, **old}


def _hybrid_params(sam: SamTowerConfig, low: dict[str, Any], low_width: int) -> dict[str, Any]:
    high: dict[str, Any] = {
        "ckpt_path": "",
        "image_size": sam.image_px,
        "model_name": _name(sam, _SAM_SIZES, "sam"),
        "output_dim": sam.width,
        "pixel_mean": list(HIGH_MEAN),
        "pixel_std": list(HIGH_STD),
        "select_feature": "same",
        "select_layer": -1,
    }
    if sam not in _SAM_SIZES.values():
        high["sizes"] = to_dict(sam)
    inside = {"ckpt_path": "", "output_dim": low_width, "pixel_mean": list(LOW_MEAN), "pixel_std": list(LOW_STD)}
    return {
        "concat_type": "tuple",
        "freeze_high": True,
        "freeze_low": True,
        "high_res_cfg": high,
        "low_res_cfg": low | inside,
    }


def _language(values: Mapping[str, Any], tied: bool) -> LlamaConfig:
    _expect("language_config.model_type", values.get("model_type", "llama"), "llama")
    given = {key: value for key, value in values.items() if key not in _NOT_LLAMA}
    if given.get("vocab_size") == PUBLISHED_VOCABULARY:
        # Left out where published, and Llama's defaults are other tokens.
        given = {"bos_token_id": BOS_TOKEN_ID, "eos_token_id": EOS_TOKEN_ID, "pad_token_id": EOS_TOKEN_ID} | given
    try:
        return LlamaConfig(**(given | {"tie_word_embeddings": tied}))
    except Exception as error:  # whatever transformers' checks of values raise
        raise ConfigError("language_config: transformers refuses it", actual=str(error).split("\n")[0]) from error


def _siglip(params: Mapping[str, Any], path: str) -> SiglipTowerConfig:
    name = str(params.get("model_name", "siglip_large_patch16_384"))
    if "sizes" in params:
        return from_dict(SiglipTowerConfig, _mapping(params, "sizes", f"{path}."))
    if name not in _SIGLIP_SIZES:
        raise ConfigError(f"{path}.model_name: unknown", expected=" or ".join(_SIGLIP_SIZES), actual=name)
    size = _SIGLIP_SIZES[name]
    # The original's own arithmetic and defaults: -1 is the last layer, -2 leaves it out.
    select = int(params.get("select_layer", -2))
    layers = min(size.layers, size.layers + select + 1 if select <= 0 else select)
    if layers < 1:
        raise ConfigError(f"{path}.select_layer: no layer is left", expected=f"-{size.layers} to -1", actual=select)
    values = to_dict(size) | {"layers": layers, "native_px": int(params.get("image_size", 336))}
    return from_dict(SiglipTowerConfig, values)


def _sam(params: Mapping[str, Any], siglip: SiglipTowerConfig) -> SamTowerConfig:
    path = "vision_config.params.high_res_cfg"
    if "sizes" in params:
        return from_dict(SamTowerConfig, _mapping(params, "sizes", f"{path}."))
    name = str(params.get("model_name", ""))
    if name not in _SAM_SIZES:
        raise ConfigError(f"{path}.model_name: unknown", expected=" or ".join(_SAM_SIZES), actual=name)
    side = siglip.native_px // siglip.patch_px
    values = to_dict(_SAM_SIZES[name]) | {"image_px": int(params.get("image_size", 336)), "tokens_side": side}
    return from_dict(SamTowerConfig, values)


def _tower(params: Mapping[str, Any], name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Mapping[str, Any]:
    path = "vision_config.params."
    tower = _mapping(params, name, path)
    for key, value in (("pixel_mean", mean), ("pixel_std", std)):
        _expect(f"{path}{name}.{key}", list(tower.get(key) or ()), list(value))
    return tower


def _check_widths(aligner: Mapping[str, Any], tower_width: int, language: LlamaConfig) -> None:
    _expect("aligner_config.params.input_dim", aligner.get("input_dim"), tower_width)
    _expect("aligner_config.params.n_embed", aligner.get("n_embed"), language.hidden_size)


def _name(size: object, sizes: Mapping[str, object], kind: str) -> str:
    return next((name for name, known in sizes.items() if known == size), f"{kind}_{_UNNAMED}")


def _mapping(values: Mapping[str, Any], key: str, path: str = "") -> Mapping[str, Any]:
    value = values.get(key)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}{key}: required, but missing", expected="an object", actual=repr(value))
    return value


def _expect(path: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise ConfigError(f"{path}: not what this model computes", expected=repr(expected), actual=repr(actual))


MODEL_TYPES = ("deepseek_vl", "deepseek_vl_hybrid")


def read_transformers(
    values: Mapping[str, Any], *, tied: bool = False, exact: Exactness = Exactness.ORIGINAL
) -> VisionLanguageConfig:
    """From the content of a `config.json`. `tied`: head and embeddings are one tensor. Raises ConfigError."""
    family = DeepseekVLHybridConfig if values.get("model_type") == MODEL_TYPES[1] else DeepseekVLConfig
    try:
        config: Any = family.from_dict(dict(values))
    except Exception as error:  # whatever transformers' checks of values raise
        raise ConfigError("transformers refuses the configuration", actual=str(error).split("\n")[0]) from error
    language = config.text_config
    if not isinstance(language, LlamaConfig):
        raise ConfigError("text_config.model_type: not a Llama", expected="llama", actual=language.model_type)
    language.tie_word_embeddings = tied
    language.dtype = None
    siglip = SiglipTowerConfig.from_transformers(config.vision_config)
    if family is DeepseekVLConfig:
        return mlp_config(siglip, language, config.image_token_id)
    sam = _transformers_sam(config.high_res_vision_config, siglip)
    return hybrid_config(sam, siglip, language, config.image_token_id, exact=exact)


def write_transformers(config: VisionLanguageConfig, dtype: str, layout: CheckpointLayout) -> dict[str, Any]:
    """The content of a `config.json` for a model of ours; `dtype` such as "bfloat16". Raises ConfigError."""
    own = parts_of(config)
    if own.depth != 2:
        raise ConfigError("connector.depth: transformers has one depth only", expected=2, actual=own.depth)
    parts: dict[str, Any] = {
        "text_config": _plain(own.language),
        "vision_config": _plain(own.siglip.to_transformers()),
    }
    if own.sam is not None:
        parts["high_res_vision_config"] = _plain(_sam_to_transformers(own.sam))
    old = layout is CheckpointLayout.TRANSFORMERS_4
    for part in parts.values():
        part["torch_dtype" if old else "dtype"] = dtype
    text = parts["text_config"]
    text["tie_word_embeddings"] = False
    if old:
        text |= {"rope_theta": llama_rope_theta(own.language), "rope_scaling": None}
        del text["rope_parameters"]
    return {
        "architectures": [f"{own.variant.in_transformers}ForConditionalGeneration"],
        "torch_dtype" if old else "dtype": dtype,
        **parts,
        "image_token_id": config.image_token_id,
        "model_type": MODEL_TYPES[own.variant is Variant.HYBRID],
        "tie_word_embeddings": False,
    }


def _transformers_sam(config: SamVisionConfig, siglip: SiglipTowerConfig) -> SamTowerConfig:
    for name, expected in (("hidden_act", "gelu"), ("qkv_bias", True), ("use_abs_pos", True), ("use_rel_pos", True)):
        if getattr(config, name) != expected:
            raise ConfigError(
                f"high_res_vision_config.{name}: not what this tower computes",
                expected=expected,
                actual=getattr(config, name),
            )
    sizes = {own: getattr(config, theirs) for own, theirs in _SAM_NAMES.items()}
    global_layers, side = tuple(config.global_attn_indexes), siglip.native_px // siglip.patch_px
    return SamTowerConfig(**sizes, global_layers=global_layers, tokens_side=side)


def _sam_to_transformers(sam: SamTowerConfig) -> SamVisionConfig:
    sizes: dict[str, Any] = {theirs: getattr(sam, own) for own, theirs in _SAM_NAMES.items()}
    mlp_ratio = sam.hidden_width / sam.trunk_width
    return SamVisionConfig(**sizes, mlp_ratio=mlp_ratio, global_attn_indexes=list(sam.global_layers))


_SAM_NAMES = {
    "image_px": "image_size",
    "patch_px": "patch_size",
    "trunk_width": "hidden_size",
    "hidden_width": "mlp_dim",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "window": "window_size",
    "neck_width": "output_channels",
    "norm_eps": "layer_norm_eps",
}
"""What transformers calls the fields of `SamTowerConfig` that it has as they are."""


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    values = cast(dict[str, Any], config.to_dict())
    return {key: value for key, value in values.items() if key not in ("transformers_version", "architectures")}
