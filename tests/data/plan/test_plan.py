"""Plans: written down, read again, the same for the same sources, and refused for others."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.data.mixture import LanguageSchedule, Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan
from lensmith.data.plan.writing import PlanConfig, PlanStage, write_plan
from tests.support.documents import MemorySource, byte_tokens

COLOURS = ("red", "green", "blue", "black", "white", "gray")
CAPTIONS = MemorySource([(f"<{colour}>", f"{colour} " * (1 + index)) for index, colour in enumerate(COLOURS)])
TEXTS = MemorySource([(f"This is text {index}. " * (1 + index % 7),) for index in range(23)])
SOURCES = {"captions": CAPTIONS, "text": TEXTS}
TOKENS = byte_tokens()
MIXTURE = Mixture.of(captions=0.6, text=0.4)
PACKING = PackingConfig(max_tokens=64, max_pictures=3, max_waiting=8)
CONFIG = PlanConfig.of(mixture=MIXTURE, packing=PACKING, sequences=200, seed=5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "plan.parquet"


def spans_by_source(plan):
    found = {}
    for number in range(len(plan)):
        sequence = plan.sequence(number)
        found.setdefault(sequence.source, []).extend(sequence.documents)
    return found


def test_a_plan_is_read_as_it_was_written(path):
    report = write_plan(path, CONFIG, SOURCES, TOKENS)
    plan = Plan(path)
    assert plan.config == CONFIG
    assert plan.report == report
    assert len(plan) == 200
    assert report.tokens == sum(plan.sequence(number).tokens for number in range(200))
    plan.check(SOURCES, TOKENS)


def test_sequences_keep_to_the_limits_and_to_one_source(path):
    write_plan(path, CONFIG, SOURCES, TOKENS)
    plan = Plan(path)
    for number in range(len(plan)):
        sequence = plan.sequence(number)
        assert sequence.source in SOURCES
        assert 0 < sequence.tokens <= 64
        assert sum(document.span.pictures for document in sequence.documents) <= 3


def test_every_record_is_read_once_before_any_is_read_again(path):
    report = write_plan(path, CONFIG, SOURCES, TOKENS)
    for name, documents in spans_by_source(Plan(path)).items():
        counts = np.bincount([document.record for document in documents if document.span.start == 0])
        # What waits at the end, at most `max_waiting` documents, may be missing from the last passes.
        assert len(counts) == report.sources[name].records
        assert counts.max() - counts.min() <= 2


def test_a_long_document_is_in_whole_but_in_parts(path):
    long = MemorySource([("A sentence of some length. " * 20,)])
    config = PlanConfig.of(mixture=Mixture.of(long=1.0), packing=PACKING, sequences=20)
    report = write_plan(path, config, {"long": long}, TOKENS)
    assert report.sources["long"].cut == report.sources["long"].documents > 0
    parts = sorted({document.span for document in spans_by_source(Plan(path))["long"]})
    assert [part.start for part in parts][1:] == [part.stop for part in parts][:-1]
    assert parts[-1].stop == len("A sentence of some length. " * 20) + 2


def test_the_same_sources_give_the_same_bytes_and_hash(path, tmp_path):
    one, again = write_plan(path, CONFIG, SOURCES, TOKENS), write_plan(tmp_path / "again", CONFIG, SOURCES, TOKENS)
    assert one == again
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_the_hash_is_of_rows_sources_and_configuration(path):
    other_seed = replace(CONFIG, seed=6)
    more = {**SOURCES, "text": MemorySource([*TEXTS.records, ("More.",)])}
    hashes = {
        write_plan(path, config, sources, TOKENS).hash
        for config, sources in ((CONFIG, SOURCES), (other_seed, SOURCES), (CONFIG, more))
    }
    assert len(hashes) == 3


def test_a_plan_is_refused_for_sources_or_tokens_that_changed(path):
    write_plan(path, CONFIG, SOURCES, TOKENS)
    changed = {**SOURCES, "text": MemorySource([*TEXTS.records[:-1], ("Something else.",)])}
    with pytest.raises(CheckpointError, match="made from something else: source text"):
        Plan(path).check(changed, TOKENS)
    with pytest.raises(CheckpointError, match="tokens_per_picture"):
        Plan(path).check(SOURCES, byte_tokens(per_picture=4))
    with pytest.raises(CheckpointError, match=r"(?s)source text.*missing"):
        Plan(path).check({"captions": CAPTIONS}, TOKENS)


def test_bad_records_are_counted_by_cause_and_named(path):
    records = [*CAPTIONS.records, "its caption is missing", ("<broken>", "a caption"), "its caption is missing"]
    report = write_plan(path, CONFIG, {**SOURCES, "captions": MemorySource(records)}, TOKENS)
    share = report.sources["captions"]
    assert share.passes > 2
    assert sorted(share.bad.values()) == [1, 2]
    assert share.bad["its caption is missing"] == 2
    assert set(share.examples["its caption is missing"]) == {"record 6", "record 8"}
    used = {document.record for document in spans_by_source(Plan(path))["captions"]}
    assert used == set(range(6))
    assert "2 bad: its caption is missing" in str(report)


def test_a_source_without_a_usable_document_is_an_error_and_leaves_no_file(path):
    with pytest.raises(InputError, match=r"(?s)'text' has no usable document.*2 of 2 records: no text"):
        write_plan(path, CONFIG, {**SOURCES, "text": MemorySource(["no text"] * 2)}, TOKENS)
    with pytest.raises(InputError, match="'text' has no records"):
        write_plan(path, CONFIG, {**SOURCES, "text": MemorySource([])}, TOKENS)
    assert not path.exists()


def test_a_source_that_is_not_given_is_named(path):
    with pytest.raises(ConfigError, match="names a source that there is not: text"):
        write_plan(path, CONFIG, {"captions": CAPTIONS}, TOKENS)


def test_what_is_no_plan_is_said(path):
    with pytest.raises(InputError, match="cannot read the plan"):
        Plan(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot read the plan"):
        Plan(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match="no plan of this format"):
        Plan(path)


def test_a_plan_of_several_row_groups_is_read_at_any_place(path):
    config = PlanConfig.of(mixture=MIXTURE, packing=PACKING, sequences=2_100)
    write_plan(path, config, SOURCES, TOKENS)
    plan = Plan(path)
    rows = pq.read_table(path).to_pylist()
    for number in (0, 1_023, 1_024, 2_099):
        assert plan.sequence(number).tokens == rows[number]["tokens"]
    with pytest.raises(IndexError):
        plan.sequence(2_100)


# Captions alone, one a sequence; then both, each step of one modality, language falling from all to 40 % in 30 steps.
STAGED = PlanConfig(
    stages=(
        PlanStage(
            mixture=Mixture.of(captions=1.0),
            packing=PackingConfig(max_tokens=48, max_pictures=1, max_waiting=1),
            sequences=24,
            sequences_per_step=8,
        ),
        PlanStage(
            mixture=MIXTURE,
            packing=PACKING,
            sequences=240,
            sequences_per_step=4,
            language=LanguageSchedule(steps=30, pure_steps=True),
        ),
    ),
    seed=5,
)


def test_stages_follow_each_other_with_a_packing_and_a_mixture_of_their_own(path):
    report = write_plan(path, STAGED, SOURCES, TOKENS)
    plan = Plan(path)
    assert plan.config == STAGED
    first = [plan.sequence(number) for number in range(24)]
    assert {sequence.source for sequence in first} == {"captions"}
    assert {len(sequence.documents) for sequence in first} == {1}, "not packed"
    # Each of the six records four times in 24 documents: a source is read through before it is read again.
    assert np.bincount([sequence.documents[0].record for sequence in first]).tolist() == [4] * 6
    later = [plan.sequence(number) for number in range(24, 264)]
    assert max(len(sequence.documents) for sequence in later) > 1, "packed"
    assert [stage.sequences for stage in report.stages] == [24, 240]
    assert [plan.stage_of(number) for number in (0, 23, 24, 263)] == [STAGED.stages[index] for index in (0, 0, 1, 1)]


def test_what_waits_when_the_packing_changes_is_said_to_be_unused(path):
    stages = tuple(
        PlanStage(mixture=Mixture.of(captions=1.0), packing=replace(PACKING, max_tokens=max_tokens), sequences=7)
        for max_tokens in (64, 48)
    )
    report = write_plan(path, PlanConfig(stages=stages), SOURCES, TOKENS)
    plan = Plan(path)
    assert max(plan.sequence(number).tokens for number in range(7, 14)) <= 48
    # No caption is cut, so each document that was read is in one sequence or in none.
    written = sum(len(plan.sequence(number).documents) for number in range(14))
    assert report.unused == report.sources["captions"].documents - written > 0


def test_steps_are_pure_and_language_falls_as_the_schedule_says(path):
    report = write_plan(path, STAGED, SOURCES, TOKENS)
    plan = Plan(path)
    steps = [[plan.sequence(24 + 4 * step + place).source for place in range(4)] for step in range(60)]
    assert {len(set(step)) for step in steps} == {1}
    wanted = [1 - 0.6 * min(step / 30, 1) for step in range(60)]
    given_so_far = np.cumsum([step[0] == "text" for step in steps])
    assert np.abs(given_so_far - np.cumsum(wanted)).max() <= 0.5 + 1e-9, "in whole steps"
    (stage,) = report.stages[1:]
    assert [(part.first_step, part.steps) for part in stage.language] == [(6 * part, 6) for part in range(10)]
    assert [part.wanted for part in stage.language] == pytest.approx(
        [np.mean(wanted[at : at + 6]) for at in range(0, 60, 6)]
    )
    assert [part.real for part in stage.language] == pytest.approx(
        [np.mean([step[0] == "text" for step in steps[at : at + 6]]) for at in range(0, 60, 6)]
    )
    assert report.sources["text"].wanted == pytest.approx(sum(wanted) / 60 * 240 / 264)
    assert "language alone, over the 60 steps of stage 2" in str(report)


def test_the_hash_is_of_the_schedule_too(path, tmp_path):
    slower = replace(STAGED.stages[1], language=LanguageSchedule(steps=31, pure_steps=True))
    one = write_plan(path, STAGED, SOURCES, TOKENS)
    other = write_plan(tmp_path / "other", replace(STAGED, stages=(STAGED.stages[0], slower)), SOURCES, TOKENS)
    assert one.hash != other.hash
    assert one == write_plan(tmp_path / "again", STAGED, SOURCES, TOKENS)


def test_a_stage_alone_draws_what_a_plan_without_stages_drew(path, tmp_path):
    """The stage's number moves the draws, so that a stage after another does not begin as that one did."""
    stage = PlanStage(mixture=MIXTURE, packing=PACKING, sequences=60)
    write_plan(path, PlanConfig(stages=(stage, stage), seed=5), SOURCES, TOKENS)
    names = [Plan(path).sequence(number).source for number in range(120)]
    assert names[:60] != names[60:]
    write_plan(tmp_path / "one", PlanConfig(stages=(stage,), seed=5), SOURCES, TOKENS)
    assert names[:60] == [Plan(tmp_path / "one").sequence(number).source for number in range(60)]


def test_language_that_has_pictures_is_refused(path):
    stage = replace(STAGED.stages[1], language=LanguageSchedule(parts=("captions",)))
    with pytest.raises(InputError, match=r"(?s)'captions' has pictures.*leave it out"):
        write_plan(path, PlanConfig(stages=(stage,)), SOURCES, TOKENS)
    assert not path.exists()


def test_a_stage_of_half_a_step_is_refused():
    with pytest.raises(ConfigError, match="not whole steps"):
        PlanStage(mixture=MIXTURE, packing=PACKING, sequences=10, sequences_per_step=4)
    with pytest.raises(ConfigError, match="no stages"):
        PlanConfig(stages=())
