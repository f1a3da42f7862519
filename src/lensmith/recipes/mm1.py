"""MM1 in small, on real data: captions, interleaved documents and text that packages hold, on two processor cores.

After MM1 (arXiv 2403.09611): its mixture of 45 % captions, 45 % interleaved documents and 10 % text by packed sequences
(section 3.3), its C-Abstractor, and all parts learning. Where we differ: everything is small, and neither the tower nor
the language model has learnt anything before.
"""

import math
from dataclasses import replace

from lensmith.data.mixture import Mixture, Weighted
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.sources import (
    CaptionTextsConfig,
    FluentEmojiConfig,
    HeldOutBy,
    OpenmojiConfig,
    Portion,
    TuxpaintConfig,
)
from lensmith.data.sources.packages import DEBIAN_FAQ, DEVELOPERS_REFERENCE, GIMP_HELP
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.families.mm1.config import LlamaDecoderConfig, Mm1Parts
from lensmith.models.language.experts import ExpertsConfig
from lensmith.models.towers import ClipTowerConfig, EfficientNetTowerConfig
from lensmith.recipes.mixtures import MIXTURES
from lensmith.recipes.pretraining import TOWER, NamedSource, PretrainingRecipe, PretrainingStage, frozen
from lensmith.recipes.weights import EFFICIENTNET_LITE0
from lensmith.train import OptimConfig, ScheduleConfig, TrainConfig

# torch's AdamW multiplies the decay by the learning rate; so this is MM1's rule, a decay of 0.1 of the rate in an
# optimizer that does not (section 3.3).
WEIGHT_DECAY = 0.1


def mm1_peak_lr(parameters: int) -> float:
    """MM1's law of the peak learning rate for a language model of so many weights without embeddings (section 3.3).

    It was fitted from 9M to 1.2B weights; 6e-5, 4e-5 and 2e-5 are what it gives for 3B, 7B and 30B.
    """
    return math.exp(-0.4214 * math.log(parameters) - 0.5535)


def mm1_toy() -> PretrainingRecipe:
    """Captions, pages and text; held out are drawings of OpenMoji's, of things that others drew as well."""
    parts = Mm1Parts(
        tower=ClipTowerConfig(width=192, hidden_width=768, layers=4, heads=6, patch_px=8, native_px=64),
        connector=CAbstractorConfig(side=4, depth=1, hidden_width=192, grid_side=8),
        decoder=LlamaDecoderConfig(width=256, layers=4, inner_width=704, head_width=64, max_positions=1024),
    )
    return PretrainingRecipe(
        name="mm1_toy",
        sources=(
            NamedSource(name="openmoji", source=_openmoji(Portion.TRAIN)),
            NamedSource(name="fluent", source=FluentEmojiConfig()),
            NamedSource(name="interleaved", source=GIMP_HELP),
            NamedSource(name="faq", source=DEBIAN_FAQ),
            NamedSource(name="reference", source=DEVELOPERS_REFERENCE),
        ),
        held_out=NamedSource(name="held_out", source=_openmoji(Portion.HELD_OUT)),
        mixture=MIXTURES["mm1"].filled(
            captions={"openmoji": 0.3, "fluent": 0.7}, interleaved="interleaved", text={"faq": 0.4, "reference": 0.6}
        ),
        packing=PackingConfig(max_tokens=512, max_pictures=24),
        sequences_per_step=8,
        parts=parts,
        vocabulary_size=4096,
        stages=(
            PretrainingStage(
                name="pretraining",
                train=TrainConfig(
                    optim=OptimConfig(peak_lr=mm1_peak_lr(parts.decoder.parameters), weight_decay=WEIGHT_DECAY),
                    schedule=ScheduleConfig(total_steps=400, warmup_steps=40, final_lr_fraction=0.1),
                    checkpoint_every_s=120.0,
                    log_every_steps=10,
                    validate_every_steps=100,
                ),
            ),
        ),
    )


def mm1_toy_moe() -> PretrainingRecipe:
    """`mm1_toy` with eight experts in every second layer; all else is the dense model's, as in MM1 (section 3.3)."""
    toy = mm1_toy()
    assert isinstance(toy.parts, Mm1Parts), "the parent's"
    decoder = replace(toy.parts.decoder, experts=ExpertsConfig(count=8, every=2))
    return replace(toy, name="mm1_toy_moe", parts=replace(toy.parts, decoder=decoder))


def supervised_stage(mixture: Mixture) -> PretrainingStage:
    """MM1's supervised fine-tuning (section 4): all parts learn, in 10,000 steps of 256 sequences of 2,048 tokens.

    For a recipe that starts from a pre-trained model, on a mixture of one's own. Where we differ: the paper's optimizer
    is AdaFactor, this one AdamW, whose decay and warm-up are not told and are none and 300 steps here.
    """
    return PretrainingStage(
        name="supervised",
        train=TrainConfig(
            optim=OptimConfig(peak_lr=1e-5, weight_decay=0.0),
            schedule=ScheduleConfig(total_steps=10_000, warmup_steps=300, final_lr_fraction=0.0),
        ),
        mixture=mixture,
        packing=PackingConfig(max_tokens=2048, max_pictures=14),
        sequences_per_step=256,
    )


def mm1_captions() -> PretrainingRecipe:
    """Captioned pictures alone, before a tower that has learnt ImageNet and stays as it is: it learns to name them.

    A tenth of the sequences are captions without pictures, so that the model also knows how likely a name is by itself.
    Pictures are drawn at the size that the tower learnt on. All three sources keep their own ways of saying things.
    """
    parts = Mm1Parts(
        tower=EfficientNetTowerConfig(),
        connector=CAbstractorConfig(side=3, depth=1, hidden_width=256, grid_side=7),
        decoder=LlamaDecoderConfig(width=256, layers=4, inner_width=704, head_width=64, max_positions=512),
    )
    openmoji = _openmoji(Portion.TRAIN, side_px=parts.tower.native_px)
    fluent = FluentEmojiConfig(side_px=parts.tower.native_px)
    return PretrainingRecipe(
        name="mm1_captions",
        sources=(
            NamedSource(name="openmoji", source=openmoji),
            NamedSource(name="fluent", source=fluent),
            NamedSource(name="tuxpaint", source=TuxpaintConfig()),
            NamedSource(name="openmoji_names", source=CaptionTextsConfig(source=openmoji)),
            NamedSource(name="fluent_names", source=CaptionTextsConfig(source=fluent)),
        ),
        held_out=NamedSource(name="held_out", source=_openmoji(Portion.HELD_OUT, side_px=parts.tower.native_px)),
        mixture=Mixture(
            parts=(
                Weighted(name="captions", weight=0.9, parts=_shares(openmoji=0.35, fluent=0.55, tuxpaint=0.1)),
                Weighted(name="names", weight=0.1, parts=_shares(openmoji_names=0.5, fluent_names=0.5)),
            )
        ),
        packing=PackingConfig(max_tokens=512, max_pictures=32),
        sequences_per_step=2,
        parts=parts,
        tower_weights=EFFICIENTNET_LITE0,
        vocabulary_size=2048,
        stages=(
            PretrainingStage(
                name="captions",
                train=TrainConfig(
                    optim=OptimConfig(
                        peak_lr=mm1_peak_lr(parts.decoder.parameters), weight_decay=WEIGHT_DECAY, parts=frozen(TOWER)
                    ),
                    schedule=ScheduleConfig(total_steps=1500, warmup_steps=75, final_lr_fraction=0.1),
                    ema_decay=0.995,
                    checkpoint_every_s=120.0,
                    log_every_steps=10,
                    validate_every_steps=150,
                ),
            ),
        ),
    )


def _openmoji(portion: Portion, *, side_px: int = 128) -> OpenmojiConfig:
    """Its drawings of things; a flag's name cannot be told from how other flags look."""
    return OpenmojiConfig(
        side_px=side_px,
        groups_left_out=("component", "extras-openmoji", "extras-unicode", "flags"),
        portion=portion,
        held_out_by=HeldOutBy.RECORDS,
    )


def mm1_test() -> PretrainingRecipe:
    """`mm1_toy` in miniature: the same path in seconds, for tests. It learns nothing useful."""
    toy = mm1_toy()
    assert isinstance(toy.parts, Mm1Parts), "its own"
    return replace(
        toy,
        name="mm1_test",
        parts=Mm1Parts(
            tower=ClipTowerConfig(width=32, hidden_width=64, layers=1, heads=2, patch_px=16, native_px=64),
            connector=CAbstractorConfig(side=2, depth=1, hidden_width=32, grid_side=4),
            decoder=LlamaDecoderConfig(width=64, layers=2, inner_width=96, head_width=32, max_positions=512),
        ),
        packing=PackingConfig(max_tokens=256, max_pictures=8, max_waiting=32),
        sequences_per_step=4,
        vocabulary_size=512,
        tokenizer_documents=50,
        stages=tuple(
            replace(
                stage,
                train=replace(
                    stage.train,
                    schedule=ScheduleConfig(total_steps=4, warmup_steps=1),
                    log_every_steps=1,
                    validate_every_steps=2,
                ),
            )
            for stage in toy.stages
        ),
    )


def _shares(**weights: float) -> tuple[Weighted, ...]:
    return tuple(Weighted(name=name, weight=weight) for name, weight in weights.items())
