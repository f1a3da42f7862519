"""The forms in which DeepSeek-VL's weights are found, told apart by their keys, and how each maps onto ours.

Four layouts: the original repository's; that of transformers 4.5x, where SigLIP lies one level deeper
(`vision_model.vision_model`); that of transformers 5; and our own. Two families: `mlp` (1.3B) and `hybrid` (7B).
`plan_for` says, for each tensor of a checkpoint, which of our tensors it holds.

Where we differ from transformers' converter: it drops tensors that it does not know without a word. Here only those
known to be unused may be there (`UNUSED`): SigLIP's attention pool, the original's two LayerNorms that are never
called, and buffers that older versions saved.
"""

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.models.checkpoints.key_rules import KeyPlan, Rule, key_plan
from lensmith.models.checkpoints.shards import Shape
from lensmith.models.families.deepseek_vl.published_keys import (
    ORIGINAL_RULES,
    TRANSFORMERS_4_RULES,
    TRANSFORMERS_RULES,
    UNUSED_ORIGINAL,
    UNUSED_TRANSFORMERS,
)

EMBEDDINGS, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


class CheckpointLayout(enum.Enum):
    """`TRANSFORMERS` is the one of transformers 5, `LENSMITH` our own state dict."""

    ORIGINAL = "original"
    TRANSFORMERS_4 = "transformers-4"
    TRANSFORMERS = "transformers"
    LENSMITH = "lensmith"


def layout_named(name: str) -> CheckpointLayout:
    """Raises ConfigError for a name that is none, naming those that are."""
    names = [layout.value for layout in CheckpointLayout]
    if name not in names:
        raise ConfigError("no such layout", expected=", ".join(names), actual=name)
    return CheckpointLayout(name)


class Variant(enum.Enum):
    """`MLP`: one SigLIP tower (1.3B). `HYBRID`: SAM and SigLIP (7B)."""

    MLP = "mlp"
    HYBRID = "hybrid"

    @property
    def in_transformers(self) -> str:
        """How the names of transformers' classes for it begin."""
        return "DeepseekVLHybrid" if self is Variant.HYBRID else "DeepseekVL"


@dataclass(frozen=True, kw_only=True)
class CheckpointForm:
    layout: CheckpointLayout
    variant: Variant


_SIGNS: dict[CheckpointLayout, re.Pattern[str]] = {
    CheckpointLayout.ORIGINAL: re.compile(r"vision_model\.(vision_tower|high_layer_norm|low_layer_norm)|aligner\."),
    CheckpointLayout.TRANSFORMERS_4: re.compile(r"model\.vision_model\.vision_model\."),
    CheckpointLayout.TRANSFORMERS: re.compile(r"model\.vision_model\.(embeddings|encoder|post_layernorm|head)\."),
    CheckpointLayout.LENSMITH: re.compile(r"(vision_tower|connector)\."),
}
"""Keys that only this layout has, vision's."""

_HYBRID_SIGN = re.compile(
    r"vision_model\.vision_tower_(high|low)\.|aligner\.(high|low)_up_proj\."
    r"|model\.high_res_vision_|model\.aligner\.(high_res_)?vision_proj\."
    r"|vision_tower\.(high|low)\.|connector\.(high|low)_proj\."
)

UNUSED: dict[CheckpointLayout, tuple[re.Pattern[str], ...]] = {
    CheckpointLayout.ORIGINAL: UNUSED_ORIGINAL,
    CheckpointLayout.TRANSFORMERS_4: UNUSED_TRANSFORMERS,
    CheckpointLayout.TRANSFORMERS: UNUSED_TRANSFORMERS,
    CheckpointLayout.LENSMITH: (),
}

_RULES: dict[CheckpointLayout, tuple[Rule, ...]] = {
    CheckpointLayout.ORIGINAL: ORIGINAL_RULES,
    CheckpointLayout.TRANSFORMERS_4: TRANSFORMERS_4_RULES,
    CheckpointLayout.TRANSFORMERS: TRANSFORMERS_RULES,
    CheckpointLayout.LENSMITH: (Rule("**", "{0}"),),
}


def recognise(names: Iterable[str]) -> CheckpointForm:
    """The form of a checkpoint with these keys. Raises CheckpointError where they are no DeepSeek-VL's.

    Where keys of several layouts are mixed it is the one with most of them; the others are unexpected then.
    """
    keys = list(names)
    counts = {layout: sum(bool(sign.match(key)) for key in keys) for layout, sign in _SIGNS.items()}
    layout = max(counts, key=lambda layout: counts[layout])
    if not counts[layout]:
        raise CheckpointError(
            "these are no weights of a DeepSeek-VL model",
            expected="keys of the original layout, of transformers' or of lensmith's",
            actual=f"{len(keys)} keys, such as {', '.join(sorted(keys)[:3])}" if keys else "no keys",
        )
    variant = Variant.HYBRID if any(_HYBRID_SIGN.match(key) for key in keys) else Variant.MLP
    return CheckpointForm(layout=layout, variant=variant)


def plan_for(shapes: Mapping[str, Shape], layout: CheckpointLayout) -> KeyPlan:
    """The plan for a model whose state dict has these names and shapes. Raises CheckpointError for a name unknown."""
    return key_plan(shapes, _RULES[layout], layout=layout.value, unused=UNUSED[layout])
