"""DeepSeek-VL's three stages: the published sizes on data of one's own, and in small on real data that packages hold.

After DeepSeek-VL (arXiv 2403.05525, section 3.2 and table 4): first the adaptor learns alone, from captions; then the
language model with it, from the whole mixture, whose language share begins at all and falls, each step of one modality;
then all but SAM, from instructions. AdamW without decay. What the paper counts as the adaptor includes what brings
SAM's map down to tokens, and learns with it.

Where the paper is silent the choice is ours: the cosines end at zero; the steps of the second stage's rate are those of
DeepSeek's language models (to 0.316 after 80 %, 0.1 after 90 %); the language share falls for as long as the rate warms
up; no instructions are mixed into the second stage, since their number is not told. The first stage's length of 512
tokens does not hold a picture's 576, so here it is that of the text beside a picture. Where we differ in the third
stage: the loss is on all text, not on answers alone.
"""

from dataclasses import replace
from pathlib import Path

from lensmith.data.mixture import LanguageSchedule, Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.sources import AnySource, JsonlConfig, ObelicsConfig, TarConfig
from lensmith.models.families.deepseek_vl.parts import PUBLISHED, DeepseekVlParts, UntiedLlamaConfig
from lensmith.models.towers import SamTowerConfig, SiglipTowerConfig
from lensmith.recipes.mixtures import MIXTURES
from lensmith.recipes.mm1 import mm1_test, mm1_toy
from lensmith.recipes.pretraining import (
    CONNECTOR,
    LANGUAGE,
    TOWER,
    NamedSource,
    PretrainingRecipe,
    PretrainingStage,
    frozen,
)
from lensmith.train import LrDrop, OptimConfig, PartConfig, ScheduleConfig, TrainConfig

SAM = f"{TOWER}.high"
SAM_ADAPTOR = tuple(PartConfig(name=f"{SAM}.{part}") for part in ("neck", "neck_hd", "proj", "alpha"))
"""What of the hybrid tower learns with the adaptor: all behind SAM's trunk, as in the published code."""
TEXT_TOKENS, PICTURE_TOKENS = 512, 576
DROPS = (LrDrop(after=0.8, lr_fraction=0.316), LrDrop(after=0.9, lr_fraction=0.1))


def deepseek_vl_1_3b() -> PretrainingRecipe:
    """SigLIP alone. Reads `data/NAME` for each source, and `models/deepseek_vl_1_3b`: a trained tower and decoder."""
    return _published("1.3b", name="deepseek_vl_1_3b", peak_lr=3e-5, steps=96_000, sequences=1024)


def deepseek_vl_7b() -> PretrainingRecipe:
    """The hybrid encoder, in the same way."""
    return _published("7b", name="deepseek_vl_7b", peak_lr=4.2e-5, steps=42_000, sequences=2304)


def _published(size: str, *, name: str, peak_lr: float, steps: int, sequences: int) -> PretrainingRecipe:
    """Table 4; what it has but once for both sizes stands here, the second stage's values are arguments."""
    parts = PUBLISHED[size]
    captions = PackingConfig(max_tokens=PICTURE_TOKENS + TEXT_TOKENS, max_pictures=1, max_waiting=1)
    packed = PackingConfig(max_tokens=4096, max_pictures=7)
    adaptor, joint, tuning = _stages(
        parts,
        adaptor=_train(peak_lr=1e-3, schedule=_cosine(15_000, warmup_steps=128)),
        joint=_train(peak_lr=peak_lr, schedule=ScheduleConfig(total_steps=steps, warmup_steps=2000, drops=DROPS)),
        tuning=_train(peak_lr=2e-5, schedule=_cosine(10_000, warmup_steps=256)),
    )
    return PretrainingRecipe(
        name=name,
        sources=tuple(NamedSource(name=each, source=source) for each, source in _sources_below(Path("data")).items()),
        mixture=MIXTURES["deepseek_vl_pretraining"],
        packing=packed,
        sequences_per_step=sequences,
        parts=parts,
        vocabulary_size=parts.language.vocabulary_size or 0,
        starts_from=f"models/{name}",
        stages=(
            # ShareGPT4V's 1.25 million captions beside 2.5 million documents to read.
            replace(
                adaptor,
                mixture=Mixture.of(captions=1 / 3, document_ocr=2 / 3),
                packing=captions,
                sequences_per_step=256,
            ),
            joint,
            replace(
                tuning,
                mixture=MIXTURES["deepseek_vl_sft"].filled(
                    text="text_sft",
                    multimodal="multimodal",
                    taxonomy="taxonomy",
                    tables_charts="tables_charts_sft",
                    web_code="web_code_sft",
                ),
                packing=replace(packed, max_waiting=1),
                sequences_per_step=256,
            ),
        ),
    )


def _sources_below(folder: Path) -> dict[str, AnySource]:
    """Where each source is expected: lines of JSON, OBELICS's parquet, and webdataset tars."""
    texts, pages = ("text", "text_sft"), ("interleaved",)
    pictures = ("captions", "tables_charts", "document_ocr", "scene_text_ocr", "web_code")
    tuning = ("multimodal", "taxonomy", "tables_charts_sft", "web_code_sft")
    return {
        **{name: JsonlConfig(paths=(folder / name,)) for name in texts},
        **{name: ObelicsConfig(paths=(folder / name,)) for name in pages},
        **{name: TarConfig(paths=(folder / name,)) for name in (*pictures, *tuning)},
    }


def _stages(
    parts: DeepseekVlParts, *, adaptor: TrainConfig, joint: TrainConfig, tuning: TrainConfig
) -> tuple[PretrainingStage, PretrainingStage, PretrainingStage]:
    """The three stages, with what does not learn in each."""
    behind_sam = SAM_ADAPTOR if parts.sam is not None else ()
    warmup = LanguageSchedule(steps=joint.schedule.warmup_steps, pure_steps=True)
    return (
        PretrainingStage(name="adaptor", train=_learning(adaptor, *frozen(TOWER, LANGUAGE), *behind_sam)),
        PretrainingStage(name="joint", train=_learning(joint, *frozen(TOWER), *behind_sam), language=warmup),
        PretrainingStage(name="tuning", train=_learning(tuning, *frozen(SAM), *behind_sam) if behind_sam else tuning),
    )


def _learning(train: TrainConfig, *parts: PartConfig) -> TrainConfig:
    return replace(train, optim=replace(train.optim, parts=parts))


def _train(*, peak_lr: float, schedule: ScheduleConfig) -> TrainConfig:
    return TrainConfig(optim=OptimConfig(peak_lr=peak_lr, weight_decay=0.0), schedule=schedule)


def _cosine(total_steps: int, *, warmup_steps: int) -> ScheduleConfig:
    return ScheduleConfig(total_steps=total_steps, warmup_steps=warmup_steps, final_lr_fraction=0.0)


def deepseek_vl_toy() -> PretrainingRecipe:
    """The three stages on the packages of `mm1_toy`, in minutes.

    Nothing has been learnt before, so a stage of language alone stands first, in the place of DeepSeek's language
    model; the tower's features are those of random weights until it learns, in the last. There are no instructions
    among the packages: captions and text stand in for them.
    """
    data = mm1_toy()
    text: dict[str, float] = {"faq": 0.4, "reference": 0.6}
    captions: dict[str, float] = {"openmoji": 0.3, "fluent": 0.7}
    parts = DeepseekVlParts(
        siglip=SiglipTowerConfig(
            width=192, hidden_width=768, layers=4, heads=6, patch_px=16, native_px=64, activation="gelu"
        ),
        language=UntiedLlamaConfig(width=256, layers=4, inner_width=704, heads=4, max_positions=1024),
    )
    adaptor, joint, tuning = _stages(
        parts,
        adaptor=_toy_train(peak_lr=1e-3, steps=60, warmup_steps=6),
        joint=_toy_train(peak_lr=5e-4, steps=300, warmup_steps=30, drops=DROPS),
        tuning=_toy_train(peak_lr=3e-4, steps=100, warmup_steps=10),
    )
    one_document = replace(data.packing, max_waiting=1)
    return PretrainingRecipe(
        name="deepseek_vl_toy",
        sources=data.sources,
        held_out=data.held_out,
        mixture=MIXTURES["deepseek_vl_pretraining"].filled(text=text, interleaved="interleaved", captions=captions),
        packing=data.packing,
        sequences_per_step=data.sequences_per_step,
        parts=parts,
        vocabulary_size=data.vocabulary_size,
        stages=(
            PretrainingStage(
                name="language",
                train=_learning(_toy_train(peak_lr=1e-3, steps=100, warmup_steps=10), *frozen(TOWER, CONNECTOR)),
                mixture=Mixture.of(text=1.0).filled(text=text),
            ),
            replace(
                adaptor,
                mixture=Mixture.of(captions=1.0).filled(captions=captions),
                packing=one_document,
                sequences_per_step=64,
            ),
            joint,
            replace(
                tuning,
                mixture=MIXTURES["deepseek_vl_sft"].filled(text=text, multimodal=captions),
                packing=one_document,
                sequences_per_step=32,
            ),
        ),
    )


def _toy_train(*, peak_lr: float, steps: int, warmup_steps: int, drops: tuple[LrDrop, ...] = ()) -> TrainConfig:
    schedule = replace(_cosine(steps, warmup_steps=warmup_steps), drops=drops)
    return replace(
        _train(peak_lr=peak_lr, schedule=schedule),
        checkpoint_every_s=120.0,
        log_every_steps=10,
        validate_every_steps=max(20, steps // 3),
    )


def deepseek_vl_test() -> PretrainingRecipe:
    """`deepseek_vl_toy` in miniature: the same path in seconds, for tests. It learns nothing useful."""
    toy, small = deepseek_vl_toy(), mm1_test()
    siglip = SiglipTowerConfig(
        width=32, hidden_width=64, layers=1, heads=2, patch_px=16, native_px=64, activation="gelu"
    )
    return replace(
        toy,
        name="deepseek_vl_test",
        parts=DeepseekVlParts(
            siglip=siglip,
            language=UntiedLlamaConfig(width=64, layers=2, inner_width=96, heads=2, max_positions=512),
        ),
        packing=small.packing,
        sequences_per_step=small.sequences_per_step,
        vocabulary_size=small.vocabulary_size,
        tokenizer_documents=small.tokenizer_documents,
        stages=tuple(
            replace(
                stage,
                packing=None if stage.packing is None else replace(small.packing, max_waiting=1),
                sequences_per_step=None if stage.sequences_per_step is None else 8,
                language=None if stage.language is None else replace(stage.language, steps=2),
                train=replace(
                    stage.train,
                    schedule=replace(stage.train.schedule, total_steps=4, warmup_steps=1),
                    log_every_steps=1,
                    validate_every_steps=0,
                ),
            )
            for stage in toy.stages
        ),
    )


def deepseek_vl_hybrid_test() -> PretrainingRecipe:
    """`deepseek_vl_test` with the hybrid encoder of the larger models."""
    test = deepseek_vl_test()
    sam = SamTowerConfig(
        image_px=128,
        trunk_width=24,
        hidden_width=96,
        layers=4,
        heads=2,
        window=3,
        global_layers=(1, 3),
        neck_width=8,
        tokens_side=4,
    )
    assert isinstance(test.parts, DeepseekVlParts), "the parent's"
    parts = replace(test.parts, sam=sam)
    language, *others = test.stages
    adaptor, joint, tuning = (stage.train for stage in others)
    frozen_so = _stages(parts, adaptor=adaptor, joint=joint, tuning=tuning)
    return replace(
        test,
        name="deepseek_vl_hybrid_test",
        parts=parts,
        stages=(language, *(replace(stage, train=own.train) for stage, own in zip(others, frozen_so, strict=True))),
    )
