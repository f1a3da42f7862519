"""Plans: written down, read again, the same for the same sources, and refused for others."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan
from lensmith.data.plan.writing import PlanConfig, write_plan
from tests.support.documents import MemorySource, byte_tokens

COLOURS = ("red", "green", "blue", "black", "white", "gray")
CAPTIONS = MemorySource([(f"<{colour}>", f"{colour} " * (1 + index)) for index, colour in enumerate(COLOURS)])
TEXTS = MemorySource([(f"This is text {index}. " * (1 + index % 7),) for index in range(23)])
SOURCES = {"captions": CAPTIONS, "text": TEXTS}
TOKENS = byte_tokens()
CONFIG = PlanConfig(
    mixture=Mixture.of(captions=0.6, text=0.4),
    packing=PackingConfig(max_tokens=64, max_pictures=3, max_waiting=8),
    sequences=200,
    seed=5,
)


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
    config = PlanConfig(mixture=Mixture.of(long=1.0), packing=CONFIG.packing, sequences=20)
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
    other_seed = PlanConfig(**{**vars(CONFIG), "seed": 6})
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
    config = PlanConfig(mixture=CONFIG.mixture, packing=CONFIG.packing, sequences=2_100)
    write_plan(path, config, SOURCES, TOKENS)
    plan = Plan(path)
    rows = pq.read_table(path).to_pylist()
    for number in (0, 1_023, 1_024, 2_099):
        assert plan.sequence(number).tokens == rows[number]["tokens"]
    with pytest.raises(IndexError):
        plan.sequence(2_100)
