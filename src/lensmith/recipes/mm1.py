"""MM1 in small, on real data: captions, interleaved documents and text that packages hold, on two processor cores.

After MM1 (arXiv 2403.09611): its mixture of 45 % captions, 45 % interleaved documents and 10 % text by packed sequences
(section 3.3), its C-Abstractor, and all parts learning. Where we differ: everything is small, and neither the tower nor
the language model has learnt anything before.
"""

import math
from dataclasses import replace

from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.sources import FluentEmojiConfig, HeldOutBy, OpenmojiConfig, Portion
from lensmith.data.sources.packages import DEBIAN_FAQ, DEVELOPERS_REFERENCE, GIMP_HELP
from lensmith.models.connectors.c_abstractor import CAbstractorConfig
from lensmith.models.families.mm1.config import LlamaDecoderConfig, Mm1Parts
from lensmith.models.language.experts import ExpertsConfig
from lensmith.models.towers import ClipTowerConfig
from lensmith.recipes.mixtures import MIXTURES
from lensmith.recipes.pretraining import NamedSource, PretrainingRecipe, PretrainingStage
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


def _openmoji(portion: Portion) -> OpenmojiConfig:
    """Its drawings of things; a flag's name cannot be told from how other flags look."""
    return OpenmojiConfig(
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
            tower=replace(toy.parts.tower, width=32, hidden_width=64, layers=1, heads=2, patch_px=16),
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
