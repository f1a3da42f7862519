"""The names of tensors in the published checkpoints, beside ours: the original repository's, and transformers'.

The original's (deepseek-ai/deepseek-vl-*): SigLIP is timm's, where q, k and v are one tensor and the table of positions
has a dimension more; SAM is the original SAM. Source: `deepseek_vl/models/{clip_encoder,projector,sam,siglip_vit}.py`.
transformers' (deepseek-community/deepseek-vl-*): what 4.5x and its converter write has SigLIP one level deeper than
what 5 writes. Source: `models/deepseek_vl/modeling_deepseek_vl.py`,
`models/deepseek_vl_hybrid/modeling_deepseek_vl_hybrid.py`.
"""

import re
from typing import Final

from lensmith.models.checkpoints.key_rules import Rule, within

_SIGLIP: Final = (
    Rule("embeddings.patch_embedding.*", "patch_embed.proj.{0}"),
    Rule("embeddings.position_embedding.weight", "pos_embed", in_front=True),
    Rule("encoder.layers.*.self_attn.q_proj.*", "blocks.{0}.attn.qkv.{1}", part=0),
    Rule("encoder.layers.*.self_attn.k_proj.*", "blocks.{0}.attn.qkv.{1}", part=1),
    Rule("encoder.layers.*.self_attn.v_proj.*", "blocks.{0}.attn.qkv.{1}", part=2),
    Rule("encoder.layers.*.self_attn.out_proj.*", "blocks.{0}.attn.proj.{1}"),
    Rule("encoder.layers.*.layer_norm1.*", "blocks.{0}.norm1.{1}"),
    Rule("encoder.layers.*.layer_norm2.*", "blocks.{0}.norm2.{1}"),
    Rule("encoder.layers.*.mlp.*.*", "blocks.{0}.mlp.{1}.{2}"),
    Rule("post_layernorm.*", "norm.{0}"),
)

_NECK: Final = (
    Rule("conv1.weight", "0.weight"),
    Rule("layer_norm1.*", "1.{0}"),
    Rule("conv2.weight", "2.weight"),
    Rule("layer_norm2.*", "3.{0}"),
)

_ORIGINAL_SAM: Final = (
    Rule("pos_embed", "pos_embed"),
    Rule("patch_embed.projection.*", "patch_embed.proj.{0}"),
    Rule("layers.*.layer_norm1.*", "blocks.{0}.norm1.{1}"),
    Rule("layers.*.layer_norm2.*", "blocks.{0}.norm2.{1}"),
    Rule("layers.*.attn.**", "blocks.{0}.attn.{1}"),
    Rule("layers.*.mlp.**", "blocks.{0}.mlp.{1}"),
    *within("neck.", "neck.", _NECK),
    *within("neck_hd.", "neck_hd.", _NECK),
    Rule("proj.conv1.weight", "downsamples.0.weight"),
    Rule("proj.conv2.weight", "downsamples.1.weight"),
    Rule("alpha", "hd_alpha_downsamples"),
)

ORIGINAL_RULES: Final = (
    *within("vision_tower.siglip.", "vision_model.vision_tower.", _SIGLIP),
    *within("vision_tower.low.siglip.", "vision_model.vision_tower_low.vision_tower.", _SIGLIP),
    *within("vision_tower.high.", "vision_model.vision_tower_high.vision_tower.", _ORIGINAL_SAM),
    Rule("connector.high_proj.*", "aligner.high_up_proj.{0}"),
    Rule("connector.low_proj.*", "aligner.low_up_proj.{0}"),
    Rule("connector.layers.**", "aligner.layers.{0}"),
    Rule("language_model.**", "language_model.{0}"),
)

UNUSED_ORIGINAL: Final = (
    # SigLIP's attention pool: its class makes it, and the model is built to leave it out (`ignore_head`).
    re.compile(
        r"vision_model\.(vision_tower_low\.)?vision_tower\.attn_pool\."
        r"(latent|pos_embed|(q|kv|proj|norm|q_norm|k_norm|mlp\.fc1|mlp\.fc2)\.(weight|bias))"
    ),
    # Two norms of the hybrid tower that it never calls.
    re.compile(r"vision_model\.(high|low)_layer_norm\.(weight|bias)"),
    # A buffer that older versions of transformers saved.
    re.compile(r"language_model\.model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
)

_TRANSFORMERS_SAM: Final = (
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
    return (*low, *_TRANSFORMERS_SAM, *_CONNECTOR, *_LANGUAGE)


TRANSFORMERS_RULES: Final = _rules("model.vision_model.{0}")
TRANSFORMERS_4_RULES: Final = _rules("model.vision_model.vision_model.{0}")

UNUSED_TRANSFORMERS: Final = (
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
