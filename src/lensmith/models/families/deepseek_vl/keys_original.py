"""The names of the original repository's checkpoints (deepseek-ai/deepseek-vl-*), beside ours.

SigLIP there is timm's: q, k and v are one tensor, the table of positions has a dimension more. SAM is the original
SAM. Source: `deepseek_vl/models/{clip_encoder,projector,sam,siglip_vit}.py`.
"""

import re
from typing import Final

from lensmith.models.families.deepseek_vl.places import Place, Rule, find, within

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

_SAM: Final = (
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

_RULES: Final = (
    *within("vision_tower.siglip.", "vision_model.vision_tower.", _SIGLIP),
    *within("vision_tower.low.siglip.", "vision_model.vision_tower_low.vision_tower.", _SIGLIP),
    *within("vision_tower.high.", "vision_model.vision_tower_high.vision_tower.", _SAM),
    Rule("connector.high_proj.*", "aligner.high_up_proj.{0}"),
    Rule("connector.low_proj.*", "aligner.low_up_proj.{0}"),
    Rule("connector.layers.**", "aligner.layers.{0}"),
    Rule("language_model.**", "language_model.{0}"),
)

UNUSED: Final = (
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


def place_of(name: str) -> Place:
    """Where our tensor `name` lies. Raises CheckpointError for a name that no DeepSeek-VL has."""
    return find(_RULES, name)
