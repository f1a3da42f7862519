"""Recorded traffic: answers come back exactly, and nothing is made up."""

import json

import numpy as np
import pytest

from lensmith.core.endpoint import Endpoint, Feature, RefusedError, Request, Reveal
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure
from lensmith.core.types import Message, Picture
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.replay import RecordingEndpoint, ReplayEndpoint


def fake(**switches):
    return FakeEndpoint(vocabulary=31, width=4, metadata={"n_embd": 4}, **switches)


REQUESTS = [
    Request(prompt="a", max_tokens=2, temperature=0.0),
    Request(token_ids=(1, 2), seed=3, n=2, top_logprobs=3, wanted_ids=(4,), logit_bias={5: 1.5}, allowed_ids=(5, 6)),
    Request(prompt="secret words", reveal=Reveal.VOCABULARY | Reveal.PROMPT | Reveal.SAMPLED, max_tokens=1),
    Request(messages=(Message(role="user", parts=("secret words", Picture(data=b"secret picture"))),)),
]


def equal(left, right):
    """Dataclasses of arrays, compared bit by bit."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if hasattr(left, "__dataclass_fields__"):
        return all(equal(getattr(left, name), getattr(right, name)) for name in left.__dataclass_fields__)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


def test_answers_come_back_exactly(tmp_path):
    recording = RecordingEndpoint(fake(), tmp_path / "a.jsonl")
    answers = recording.answer(REQUESTS)
    replay = ReplayEndpoint(tmp_path / "a.jsonl")
    assert isinstance(recording, Endpoint)
    assert isinstance(replay, Endpoint)
    assert equal(tuple(replay.answer(REQUESTS)), tuple(answers))
    assert replay.supports() == recording.supports() == fake().supports()
    assert replay.metadata() == {"id": "fake", "n_embd": 4}


def test_equal_requests_are_answered_in_turn_and_no_oftener(tmp_path):
    request = Request(prompt="a", max_tokens=8)
    recording = RecordingEndpoint(fake(), tmp_path / "a.jsonl")
    texts = [recording.answer([request])[0].choices[0].text for _ in range(3)]
    replay = ReplayEndpoint(tmp_path / "a.jsonl")
    assert len(set(texts)) == 3
    assert [replay.answer([request])[0].choices[0].text for _ in range(3)] == texts
    with pytest.raises(InputError, match="more often"):
        replay.answer([request])


def test_an_unknown_request_is_an_error(tmp_path):
    RecordingEndpoint(fake(), tmp_path / "a.jsonl").answer(REQUESTS)
    replay = ReplayEndpoint(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"not in a\.jsonl"):
        replay.answer([Request(prompt="a", max_tokens=2, temperature=0.5)])


def test_refusals_are_replayed(tmp_path):
    recording = RecordingEndpoint(fake(exposes=Exposure.text_only()), tmp_path / "a.jsonl")
    with pytest.raises(RefusedError) as recorded:
        recording.answer(REQUESTS[:2])
    with pytest.raises(RefusedError) as replayed:
        ReplayEndpoint(tmp_path / "a.jsonl").answer(REQUESTS[:2])
    assert replayed.value.feature == recorded.value.feature != Feature.NOTHING
    assert str(replayed.value) == str(recorded.value)


def test_a_record_holds_no_prompt_and_can_be_continued(tmp_path):
    path = tmp_path / "a.jsonl"
    RecordingEndpoint(fake(), path).answer(REQUESTS[2:])
    assert "secret" not in path.read_text()
    RecordingEndpoint(fake(), path).answer(REQUESTS[:2])
    ReplayEndpoint(path).answer(REQUESTS)


@pytest.mark.parametrize("text", ["", "{}", "not JSON", '{"format": "other"}', json.dumps([1])])
def test_a_file_that_is_no_record(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match="is no record"):
        ReplayEndpoint(tmp_path / "a.jsonl")


def test_a_record_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        ReplayEndpoint(tmp_path / "b.jsonl")
