"""transformers' `config.json` of DeepSeek-VL (`deepseek_vl`, `deepseek_vl_hybrid`), read and written.

Read through transformers' own configuration classes, so that what a file leaves out takes their defaults. Written, head
and embeddings are always said to be two tensors (`tie_word_embeddings` false, outside and inside): transformers 5 takes
the outer one as true where it is left out.
"""

from collections.abc import Mapping
from typing import Any, cast

from transformers import DeepseekVLConfig, DeepseekVLHybridConfig, LlamaConfig, PreTrainedConfig, SamVisionConfig

from lensmith.core.errors import ConfigError
from lensmith.models.config import VisionLanguageConfig
from lensmith.models.exactness import Exactness
from lensmith.models.families.deepseek_vl.config import hybrid_config, mlp_config, parts_of
from lensmith.models.families.deepseek_vl.config_original import llama_rope_theta
from lensmith.models.families.deepseek_vl.layouts import Family, Layout
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.sam import SamTowerConfig

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
    sam = _sam(config.high_res_vision_config, siglip)
    return hybrid_config(sam, siglip, language, config.image_token_id, exact=exact)


def write_transformers(config: VisionLanguageConfig, dtype: str, layout: Layout) -> dict[str, Any]:
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
    old = layout is Layout.TRANSFORMERS_4
    for part in parts.values():
        part["torch_dtype" if old else "dtype"] = dtype
    text = parts["text_config"]
    text["tie_word_embeddings"] = False
    if old:
        text |= {"rope_theta": llama_rope_theta(own.language), "rope_scaling": None}
        del text["rope_parameters"]
    is_hybrid = own.family is Family.HYBRID
    hybrid = "Hybrid" if is_hybrid else ""
    return {
        "architectures": [f"DeepseekVL{hybrid}ForConditionalGeneration"],
        "torch_dtype" if old else "dtype": dtype,
        **parts,
        "image_token_id": config.image_token_id,
        "model_type": MODEL_TYPES[1] if is_hybrid else MODEL_TYPES[0],
        "tie_word_embeddings": False,
    }


def _sam(config: SamVisionConfig, siglip: SiglipTowerConfig) -> SamTowerConfig:
    for name, expected in (("hidden_act", "gelu"), ("qkv_bias", True), ("use_abs_pos", True), ("use_rel_pos", True)):
        if getattr(config, name) != expected:
            raise ConfigError(
                f"high_res_vision_config.{name}: not what this tower computes",
                expected=expected,
                actual=getattr(config, name),
            )
    return SamTowerConfig(
        image_px=config.image_size,
        patch_px=config.patch_size,
        trunk_width=config.hidden_size,
        hidden_width=config.mlp_dim,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        window=config.window_size,
        global_layers=tuple(config.global_attn_indexes),
        neck_width=config.output_channels,
        tokens_side=siglip.native_px // siglip.patch_px,
        norm_eps=config.layer_norm_eps,
    )


def _sam_to_transformers(sam: SamTowerConfig) -> SamVisionConfig:
    return SamVisionConfig(
        image_size=sam.image_px,
        patch_size=sam.patch_px,
        hidden_size=sam.trunk_width,
        mlp_dim=sam.hidden_width,
        mlp_ratio=sam.hidden_width / sam.trunk_width,
        num_hidden_layers=sam.layers,
        num_attention_heads=sam.heads,
        window_size=sam.window,
        global_attn_indexes=list(sam.global_layers),
        output_channels=sam.neck_width,
        layer_norm_eps=sam.norm_eps,
    )


def _plain(config: PreTrainedConfig) -> dict[str, Any]:
    values = cast(dict[str, Any], config.to_dict())
    return {key: value for key, value in values.items() if key not in ("transformers_version", "architectures")}
