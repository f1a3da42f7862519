"""The file of results: appended as they come, gone on with after a stop, refused where it holds something else."""

import dataclasses
import json

import pytest

from lensmith.core.errors import InputError
from lensmith.evaluate.choice.question import Asking, HowAsked, Mode, Normalise, Result
from lensmith.evaluate.choice.results import ResultsHead, open_results

HEAD = ResultsHead(
    file="q.jsonl",
    file_sha256="0" * 64,
    model="tiny",
    identity="1" * 64,
    probe=(-1.5, -2.25),
    tolerance=1e-3,
    how=HowAsked(mode=Mode.LIKELIHOOD, normalise=Normalise.LETTER),
)


def result(name):
    asking = Asking(answer=1, chosen=0, scores=(-0.5, -1.25))
    return Result(id=name, line=3, options=2, category="c", asked=(asking,))


def test_results_are_in_the_file_when_they_are_added(tmp_path):
    path = tmp_path / "deep" / "r.jsonl"
    with open_results(path, HEAD) as results:
        results.add(result("a"))
        lines = path.read_text().splitlines()
    head, record = map(json.loads, lines)
    assert head["mode"] == record["mode"] == "likelihood"
    assert record["id"] == "a"
    with open_results(path, HEAD) as results:
        assert results.done == {"a": result("a")}
        results.add(result("b"))
    with open_results(path, HEAD) as results:
        assert list(results.done) == ["a", "b"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_record_that_was_cut_off_is_dropped(tmp_path, cut):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD) as results:
        results.add(result("a"))
    whole = path.read_bytes()
    with open_results(path, HEAD) as results:
        results.add(result("b"))
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    with open_results(path, HEAD) as results:
        assert list(results.done) == ["a"]
        results.add(result("b"))
    with open_results(path, HEAD) as results:
        assert results.done == {"a": result("a"), "b": result("b")}


def test_a_head_that_was_cut_off_is_written_again(tmp_path):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD):
        pass
    path.write_bytes(path.read_bytes()[:20])
    with open_results(path, HEAD) as results:
        results.add(result("a"))
    with open_results(path, HEAD) as results:
        assert list(results.done) == ["a"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"identity": "2" * 64}, "model_identity"),
        ({"probe": (-1.5, -2.26)}, "model_probe"),
        ({"probe": (-1.5,)}, "model_probe"),
        ({"file_sha256": "3" * 64}, "file_sha256"),
        ({"how": HowAsked(mode=Mode.GENERATION, normalise=None, max_new_tokens=8)}, "mode"),
        ({"how": HowAsked(mode=Mode.LIKELIHOOD, normalise=Normalise.SUM)}, "normalise"),
        ({"how": HowAsked(mode=Mode.LIKELIHOOD, normalise=Normalise.LETTER, circular=True)}, "circular"),
    ],
)
def test_results_of_something_else_are_refused_and_kept(tmp_path, change, told):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD) as results:
        results.add(result("a"))
    before = path.read_bytes()
    with (
        pytest.raises(InputError, match="something else") as caught,
        open_results(path, dataclasses.replace(HEAD, **change)),
    ):
        pass
    assert told in str(caught.value)
    assert path.read_bytes() == before


def test_names_and_last_digits_may_change(tmp_path):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD) as results:
        results.add(result("a"))
    near = dataclasses.replace(HEAD, file="moved.jsonl", model="moved", probe=(-1.5004, -2.2497))
    with open_results(path, near) as results:
        assert list(results.done) == ["a"]


@pytest.mark.parametrize("content", ["notes\n", "a text without end", '{"a": 1}\n', "[1]\n", "\x00\xff\n"])
def test_another_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(InputError), open_results(path, HEAD):
        pass
    assert path.read_text() == content


@pytest.mark.parametrize(
    "line", ["garbage", '{"id": "a"}', '{"id": "a", "line": 1, "options": 2, "category": "", "asked": 3}']
)
def test_a_damaged_record_inside_is_refused(tmp_path, line):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD):
        pass
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2"), open_results(path, HEAD):
        pass


def test_two_runs_at_once_are_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    with open_results(path, HEAD), pytest.raises(InputError, match="another run"), open_results(path, HEAD):
        pass


def test_without_a_file_results_are_only_remembered():
    with open_results(None, HEAD) as results:
        results.add(result("a"))
        assert results.done == {"a": result("a")}


def test_answers_that_were_read_by_other_rules_are_not_continued(tmp_path):
    path, head = tmp_path / "r.jsonl", dataclasses.replace(HEAD, how=HowAsked(mode=Mode.GENERATION, normalise=None))
    with open_results(path, head) as results:
        results.add(result("a"))
    first, *rest = path.read_text().splitlines()
    values = json.loads(first)
    path.write_text("\n".join([json.dumps(values | {"reading_version": values["reading_version"] - 1}), *rest]) + "\n")
    with pytest.raises(InputError, match="something else") as caught, open_results(path, head):
        pass
    assert "reading_version" in caught.value.expected
