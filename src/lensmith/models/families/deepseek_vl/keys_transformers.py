"""The names of transformers' checkpoints (deepseek-community/deepseek-vl-*), beside ours.

What transformers 4.5x and its converter write has SigLIP one level deeper than what transformers 5 writes. Source:
`models/deepseek_vl/modeling_deepseek_vl.py`, `models/deepseek_vl_hybrid/modeling_deepseek_vl_hybrid.py`.
"""

import re
from typing import Final

from lensmith.models.families.deepseek_vl.places import Place, Rule, find

_SAM: Final = (
    Rule("vision_tower.high.neck_hd.**", "model.high_res_vision_neck.{0}"),
    Rule("vision_tower.high.proj.**", "model.high_res_vision_proj.{0}"),
    Rule("vision_tower.high.alpha", "model.high_res_vision_alpha"),
    Rule("vision_tower.high.**", "model.high_res_vision_model.vision_encoder.{0}"),
)

_CONNECTOR: Final = (
    Rule("connector.high_proj.*", "model.aligner.high_res_vision_proj.{0}"),
    Rule("connector.low_proj.*", "model.aligner.vision_proj.{0}"),
    Rule("connector.layers.1.*", "model.aligner.proj.{0}"),
    Rule("connector.layers.0.*", "model.aligner.linear1.{0}"),
    Rule("connector.layers.2.*", "model.aligner.linear2.{0}"),
)

_LANGUAGE: Final = (
    Rule("language_model.model.**", "model.language_model.{0}"),
    Rule("language_model.lm_head.*", "lm_head.{0}"),
)


def _rules(siglip: str) -> tuple[Rule, ...]:
    low = (Rule("vision_tower.siglip.**", siglip), Rule("vision_tower.low.siglip.**", siglip))
    return (*low, *_SAM, *_CONNECTOR, *_LANGUAGE)


_RULES: Final = _rules("model.vision_model.{0}")
_NESTED_RULES: Final = _rules("model.vision_model.vision_model.{0}")

UNUSED: Final = (
    # SigLIP's attention pool, where the configuration left `vision_use_head` on.
    re.compile(
        r"model\.vision_model\.(vision_model\.)?head\."
        r"(probe|attention\.(in_proj_weight|in_proj_bias|out_proj\.(weight|bias))"
        r"|layernorm\.(weight|bias)|mlp\.fc[12]\.(weight|bias))"
    ),
    # Buffers that older versions saved.
    re.compile(r"model\.vision_model\.(vision_model\.)?embeddings\.position_ids"),
    re.compile(r"model\.language_model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
)


def place_of(name: str) -> Place:
    """Where transformers 5 has our tensor `name`. Raises CheckpointError for a name that no DeepSeek-VL has."""
    return find(_RULES, name)


def place_of_nested(name: str) -> Place:
    """Where transformers 4.5x has it."""
    return find(_NESTED_RULES, name)
