"""What every endpoint keeps, whatever stands behind it: the fake in process and over HTTP in each dialect; a real
model in process and behind the real server.

To hold another endpoint to it, add a `Subject`: how to make one with a given exposure. Its tokens must have the fake's
names. A promise about a feature that a subject cannot be asked for is replaced by: it is refused, with that feature.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lensmith.core.endpoint import (
    NO_TOKEN,
    TEXT_IDS_FROM,
    Answer,
    Endpoint,
    Feature,
    Finish,
    Penalties,
    RefusedError,
    Request,
    Reveal,
    needed_features,
)
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, Sampled, Taken, Together
from lensmith.core.types import Message, Picture
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.endpoints.http.client import HttpClient
from lensmith.openai_api import DIALECTS
from tests.support import word_model

VOCABULARY, WIDTH, SEED = 61, 6, 5
EVERYTHING = Exposure.everything()

Make = Callable[[Exposure], contextlib.AbstractContextManager[Endpoint]]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`make` gives an endpoint with an exposure.

    `by_id`: its tokens are ids, not numbers for texts. `is_fake`: its answers are those of `fake`, to the bit.
    """

    make: Make
    by_id: bool = True
    is_fake: bool = True

    @property
    def atol(self) -> float:
        """How far two computations of one logprob may be apart: a real model's depend on what else is in its batch."""
        return 0.0 if self.is_fake else 1e-5


def fake(exposure: Exposure) -> FakeEndpoint:
    return FakeEndpoint(vocabulary=VOCABULARY, width=WIDTH, seed=SEED, exposes=exposure)


@contextlib.contextmanager
def in_process(exposure: Exposure) -> Iterator[Endpoint]:
    yield fake(exposure)


def over_http(dialect: str) -> Make:
    @contextlib.contextmanager
    def make(exposure: Exposure) -> Iterator[Endpoint]:
        with FakeServer(fake(exposure), dialect=dialect) as url, HttpClient.named(url, "fake", dialect) as client:
            yield client

    return make


BY_TEXT = {"openai", "compatible", "sglang", "llama-cpp-python"}


@contextlib.contextmanager
def real_in_process(exposure: Exposure) -> Iterator[Endpoint]:
    yield word_model.local(VOCABULARY, exposure)


@contextlib.contextmanager
def real_server(exposure: Exposure) -> Iterator[Endpoint]:
    with word_model.served(VOCABULARY, exposure) as url, HttpClient.named(url, "fake", "lensmith") as client:
        yield client


SUBJECTS = {
    "real-in-process": Subject(make=real_in_process, is_fake=False),
    "real-server": Subject(make=real_server, is_fake=False),
    "in-process": Subject(make=in_process),
    **{name: Subject(make=over_http(name), by_id=name not in BY_TEXT) for name in DIALECTS},
}


@pytest.fixture(params=SUBJECTS)
def subject(request) -> Subject:
    return SUBJECTS[request.param]


@pytest.fixture
def endpoint(subject) -> Iterator[Endpoint]:
    with subject.make(EVERYTHING) as made:
        yield made


def can(endpoint: Endpoint, request: Request) -> bool:
    """Whether the request can be asked; where not, that it is refused for the right reason."""
    missing = needed_features(request) & ~endpoint.supports().features
    if missing:
        with pytest.raises(RefusedError) as caught:
            endpoint.answer([request])
        assert caught.value.feature & missing
    return not missing


def greedy(text: str = " b c", **fields) -> Request:
    return Request(**{"prompt": text, "temperature": 0.0, "max_tokens": 3, **fields})


def first(endpoint: Endpoint, request: Request) -> Answer:
    return endpoint.answer([request])[0]


def same(left: Answer, right: Answer) -> bool:
    pairs = zip(left.choices, right.choices, strict=True)
    return all(
        a.text == b.text and a.finish is b.finish and np.array_equal(a.token_ids_T, b.token_ids_T) for a, b in pairs
    )


def near(subject: Subject, left, right) -> bool:
    return np.allclose(left, right, rtol=0, atol=subject.atol, equal_nan=True)


# --- text ---------------------------------------------------------------------------------------------------------


def test_there_are_as_many_subjects_as_there_are_dialects():
    assert len(SUBJECTS) == len(DIALECTS) + 3 >= 10


def test_it_is_an_endpoint(endpoint):
    assert isinstance(endpoint, Endpoint)
    assert endpoint.metadata()["id"] == "fake"


def test_order_is_kept(endpoint):
    requests = [greedy(f" {letter} b", max_tokens=1 + number % 3) for number, letter in enumerate("abcdefghijklmnopqr")]
    together = endpoint.answer(requests)
    alone = [first(endpoint, request) for request in requests]
    assert [answer.choices[0].text for answer in together] == [answer.choices[0].text for answer in alone]
    assert len({answer.choices[0].text for answer in together}) > 10
    assert endpoint.answer([]) == []


def test_greedy_is_deterministic_and_needs_no_seed(subject, endpoint):
    answers = [first(endpoint, greedy(reveal=Reveal.SAMPLED)) for _ in range(3)]
    assert same(answers[0], answers[1])
    values = [answer.choices[0].logprobs.sampled_T for answer in answers]
    assert near(subject, values[0], values[2])


def test_equal_seeds_give_equal_answers_and_others_do_not(endpoint):
    requests = [greedy(temperature=1.0, seed=seed, max_tokens=6) for seed in (1, 1, 2, 3)]
    answers = endpoint.answer(requests)
    assert same(answers[0], answers[1])
    assert len({answer.choices[0].text for answer in answers}) == 3


def test_n_gives_different_choices_and_the_same_ones_again(endpoint):
    request = greedy(temperature=1.0, seed=4, n=3, max_tokens=6)
    answer, again = first(endpoint, request), first(endpoint, request)
    assert len({choice.text for choice in answer.choices}) == 3
    assert same(answer, again)


def test_a_stop_ends_before_itself(endpoint):
    text = first(endpoint, greedy(max_tokens=5)).choices[0].text
    stop = text[text.rindex(" ") :]
    (choice,) = first(endpoint, greedy(max_tokens=5, stop=("never", stop))).choices
    assert choice.text == text[: text.index(stop)]
    assert choice.finish is Finish.STOP
    assert first(endpoint, greedy(max_tokens=5, stop=("never",))).choices[0].finish is Finish.LENGTH


def test_max_tokens_counts(endpoint):
    for count in (1, 4):
        (choice,) = first(endpoint, greedy(max_tokens=count, reveal=Reveal.SAMPLED)).choices
        assert len(choice.token_ids_T) == len(choice.logprobs.sampled_T) == count
        assert choice.text.count(" ") == count


def test_messages(subject, endpoint):
    def text(*parts):
        return first(endpoint, Request(messages=(Message(role="user", parts=parts),), temperature=0.0)).choices[0].text

    assert text(" b", " c") == text(" b", " c") != text(" b", " d")
    pictures = [Picture(data=b"\x89PNG" + bytes([value])) for value in range(2)]
    if subject.is_fake:  # the real one here reads no pictures
        assert text(" b", pictures[0]) == text(" b", pictures[0]) != text(" b", pictures[1])
        assert text(" b", pictures[0]) != text(" b")


def test_token_ids_and_text_are_the_same_prompt(endpoint):
    by_id = greedy(prompt="", token_ids=(1, 2))
    if can(endpoint, by_id):
        assert same(first(endpoint, by_id), first(endpoint, greedy(" b c")))


# --- logprobs -----------------------------------------------------------------------------------------------------


def test_logprobs_are_told_only_where_asked_for(endpoint):
    assert first(endpoint, greedy()).choices[0].logprobs is None
    logprobs = first(endpoint, greedy(top_logprobs=2)).choices[0].logprobs
    assert np.isnan(logprobs.sampled_T).all()
    assert logprobs.top_TK.shape == (3, 2)
    assert logprobs.wanted_TW.shape == (3, 0)
    assert logprobs.vocabulary_TV is None


def test_a_whole_vocabulary_sums_to_one(endpoint):
    request = greedy(reveal=Reveal.VOCABULARY | Reveal.SAMPLED)
    if can(endpoint, request):
        (choice,) = first(endpoint, request).choices
        whole_TV = choice.logprobs.vocabulary_TV
        assert whole_TV.shape == (3, VOCABULARY)
        assert (whole_TV <= 0).all()
        assert np.exp(whole_TV).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-9)
        columns_T = choice.token_ids_T % TEXT_IDS_FROM
        assert np.array_equal(whole_TV[np.arange(3), columns_T], choice.logprobs.sampled_T)


def test_the_top_is_sorted_and_holds_the_greedy_token(endpoint):
    (choice,) = first(endpoint, greedy(top_logprobs=5, reveal=Reveal.SAMPLED)).choices
    logprobs = choice.logprobs
    assert (np.diff(logprobs.top_TK, axis=1) <= 0).all()
    assert np.array_equal(logprobs.top_ids_TK[:, 0], choice.token_ids_T)
    assert np.array_equal(logprobs.top_TK[:, 0], logprobs.sampled_T)
    assert (logprobs.top_TK <= 0).all()


def test_the_top_is_that_of_the_vocabulary(subject, endpoint):
    request = greedy(reveal=Reveal.VOCABULARY)
    if can(endpoint, request):
        whole_TV = first(endpoint, request).choices[0].logprobs.vocabulary_TV
        logprobs = first(endpoint, greedy(top_logprobs=4)).choices[0].logprobs
        assert near(subject, logprobs.top_TK, -np.sort(-whole_TV, axis=1)[:, :4])
        told_TK = np.take_along_axis(whole_TV, logprobs.top_ids_TK % TEXT_IDS_FROM, axis=1)
        assert near(subject, told_TK, logprobs.top_TK)


def test_wanted_ids_are_columns_of_the_vocabulary(subject, endpoint):
    wanted = (7, 0, VOCABULARY - 1)
    request = greedy(wanted_ids=wanted)
    if can(endpoint, request):
        whole_TV = first(endpoint, greedy(reveal=Reveal.VOCABULARY)).choices[0].logprobs.vocabulary_TV
        assert near(subject, first(endpoint, request).choices[0].logprobs.wanted_TW, whole_TV[:, wanted])


def test_a_sampled_token_outside_the_top_has_its_own_logprob(endpoint):
    request = greedy(logit_bias={40: 1e3}, top_logprobs=2, reveal=Reveal.SAMPLED, max_tokens=1)
    (choice,) = first(endpoint, request).choices
    assert choice.token_ids_T[0] not in choice.logprobs.top_ids_TK
    assert choice.logprobs.sampled_T[0] < choice.logprobs.top_TK[0, 1]
    assert choice.logprobs.top_ids_TK.shape == (1, 2)
    assert NO_TOKEN not in choice.logprobs.top_ids_TK


def test_echo_tells_what_an_answer_would_have_told(subject, endpoint):
    request = greedy(" b c d", max_tokens=1, reveal=Reveal.PROMPT | Reveal.SAMPLED, top_logprobs=3)
    if not can(endpoint, request):
        return
    answer = first(endpoint, request)
    prompt = answer.prompt_logprobs
    assert answer.choices[0].text == first(endpoint, greedy(" b c d", max_tokens=1)).choices[0].text
    assert len(answer.prompt_ids_P) == len(prompt.sampled_T) == 3
    assert np.isnan(prompt.sampled_T[0])
    assert np.isfinite(prompt.sampled_T[1:]).all()
    forced = greedy(" b c", max_tokens=1, logit_bias={3: 1e3}, reveal=Reveal.SAMPLED, top_logprobs=3)
    (choice,) = first(endpoint, forced).choices
    assert choice.text == " d"
    assert near(subject, prompt.sampled_T[2], choice.logprobs.sampled_T[0])
    assert near(subject, prompt.top_TK[2], choice.logprobs.top_TK[0])
    assert answer.prompt_ids_P[2] == choice.token_ids_T[0]


def test_echo_without_an_answer(endpoint):
    request = greedy(max_tokens=0, reveal=Reveal.PROMPT | Reveal.SAMPLED)
    if can(endpoint, request):
        answer = first(endpoint, request)
        (choice,) = answer.choices
        assert (choice.text, len(choice.token_ids_T), len(choice.logprobs.sampled_T)) == ("", 0, 0)
        assert np.isfinite(answer.prompt_logprobs.sampled_T).tolist() == [False, True]


# --- bias ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", Taken)
def test_a_bias_forces_a_token_and_moves_logprobs_only_after_it(subject, taken):
    with subject.make(dataclasses.replace(EVERYTHING, logprobs_taken=taken)) as endpoint:
        plain = first(endpoint, greedy(" b", max_tokens=1, top_logprobs=VOCABULARY)).choices[0]
        forced = first(endpoint, greedy(" b", max_tokens=1, top_logprobs=VOCABULARY, logit_bias={9: 50.0})).choices[0]
        assert forced.text == " j"
        before = dict(zip(plain.logprobs.top_ids_TK[0].tolist(), plain.logprobs.top_TK[0].tolist(), strict=True))
        after = dict(zip(forced.logprobs.top_ids_TK[0].tolist(), forced.logprobs.top_TK[0].tolist(), strict=True))
        if taken is Taken.BEFORE_BIAS:
            assert after == before
        else:
            assert max(after.values()) > -1e-6
            assert after[forced.token_ids_T[0]] == max(after.values())


def test_an_allow_list_is_kept(endpoint):
    request = greedy(allowed_ids=(5, 8), max_tokens=6)
    if can(endpoint, request):
        assert set(first(endpoint, request).choices[0].token_ids_T.tolist()) <= {5, 8}


@pytest.mark.parametrize(
    "penalties",
    [Penalties(presence=2.0), Penalties(frequency=2.0), Penalties(frequency=-2.0), Penalties(repetition=2.0)],
)
def test_penalties_are_taken_off_what_is_written(subject, penalties):
    """Token by token, from whole vocabularies of the endpoint in process, and the same wherever it stands."""
    reference = fake(EVERYTHING) if subject.is_fake else word_model.local(VOCABULARY, EVERYTHING)
    prompt = greedy().prompt
    prompt_ids = first(reference, greedy(reveal=Reveal.PROMPT)).prompt_ids_P.tolist()
    expected: list[int] = []
    for _ in range(8):
        asked = Request(token_ids=(*prompt_ids, *expected), temperature=0.0, max_tokens=1, reveal=Reveal.VOCABULARY)
        logprobs_V = first(reference, asked).choices[0].logprobs.vocabulary_TV[0].copy()
        if penalties.repetition != 1:  # its zero is that of the logits, which logprobs do not tell
            logprobs_V = word_or_fake_logits(reference, asked)
        for token in set(prompt_ids) | set(expected):
            over_0 = logprobs_V[token] > 0
            logprobs_V[token] *= 1 / penalties.repetition if over_0 else penalties.repetition
        for token in expected:
            logprobs_V[token] -= penalties.frequency
        for token in set(expected):
            logprobs_V[token] -= penalties.presence
        expected.append(int(logprobs_V.argmax()))
    plain = first(reference, greedy(prompt, max_tokens=8)).choices[0]
    with subject.make(EVERYTHING) as endpoint:
        request = greedy(prompt, max_tokens=8, penalties=penalties)
        if not can(endpoint, request):
            return
        [choice] = first(endpoint, request).choices
        told = first(endpoint, dataclasses.replace(request, reveal=Reveal.SAMPLED)).choices[0]
    assert choice.text == told.text != plain.text
    if subject.by_id:
        assert told.token_ids_T.tolist() == expected


def word_or_fake_logits(reference, request):
    if isinstance(reference, FakeEndpoint):
        return reference.true_logits(request).astype(np.float64)
    with torch.inference_mode():
        ids = torch.tensor([request.token_ids])
        return word_model.model(VOCABULARY)(ids).logits[0, -1].double().numpy().copy()


# --- refusals -----------------------------------------------------------------------------------------------------

TEXT_ONLY = Exposure.text_only()
REFUSALS = [
    (TEXT_ONLY, {"top_logprobs": 1}, Feature.TOP_LOGPROBS),
    (TEXT_ONLY, {"reveal": Reveal.SAMPLED}, Feature.SAMPLED_LOGPROB),
    (TEXT_ONLY, {"logit_bias": {1: 1.0}}, Feature.LOGIT_BIAS),
    (TEXT_ONLY, {"wanted_ids": (1,)}, Feature.WANTED_IDS),
    (TEXT_ONLY, {"allowed_ids": (1,)}, Feature.ALLOWED_IDS),
    (Exposure(), {"reveal": Reveal.PROMPT | Reveal.SAMPLED}, Feature.PROMPT_LOGPROBS),
    (Exposure(), {"reveal": Reveal.VOCABULARY}, Feature.VOCABULARY_LOGPROBS),
    (Exposure(top_logprobs=5), {"top_logprobs": 6}, Feature.TOP_LOGPROBS),
    (Exposure(logit_bias=3.0), {"logit_bias": {1: -3.5}}, Feature.LOGIT_BIAS),
    (Exposure(biased_ids=1), {"logit_bias": {1: 1.0, 2: 1.0}}, Feature.LOGIT_BIAS),
    (TEXT_ONLY, {"penalties": Penalties(presence=0.5)}, Feature.PRESENCE_PENALTY),
    (Exposure(biased_ids=9), {"penalties": Penalties(frequency=0.5)}, Feature.FREQUENCY_PENALTY),
    (Exposure(logit_bias=3.0), {"penalties": Penalties(repetition=1.5)}, Feature.REPETITION_PENALTY),
    (Exposure(wanted_ids=2), {"wanted_ids": (1, 2, 3)}, Feature.WANTED_IDS),
    (Exposure(bias_with_logprobs=Together.REFUSED), {"logit_bias": {1: 1.0}, "top_logprobs": 1}, Feature.LOGIT_BIAS),
]


@pytest.mark.parametrize(("exposure", "fields", "feature"), REFUSALS, ids=range(len(REFUSALS)))
def test_refusals_say_which_feature(subject, exposure, fields, feature):
    with subject.make(exposure) as endpoint:
        with pytest.raises(RefusedError) as caught:
            endpoint.answer([greedy(), greedy(**fields)])
        assert feature in caught.value.feature
        assert first(endpoint, greedy()).choices[0].text, "it goes on after a refusal"


def test_a_masked_token_is_told_within_the_cap_only(subject):
    with subject.make(Exposure(top_logprobs=2, sampled_logprob=Sampled.MASKED)) as endpoint:
        inside = first(endpoint, greedy(reveal=Reveal.SAMPLED)).choices[0].logprobs
        outside = first(endpoint, greedy(reveal=Reveal.SAMPLED, logit_bias={40: 100.0})).choices[0].logprobs
        assert np.isfinite(inside.sampled_T).all()
        assert np.isnan(outside.sampled_T).all()


def test_a_hidden_sampled_token_leaves_the_top(subject):
    with subject.make(Exposure(top_logprobs=2, sampled_logprob=Sampled.HIDDEN)) as endpoint:
        logprobs = first(endpoint, greedy(top_logprobs=2)).choices[0].logprobs
        assert np.isfinite(logprobs.top_TK).all()
        assert np.isnan(logprobs.sampled_T).all()


def test_rounding_is_what_the_exposure_says(subject):
    with subject.make(dataclasses.replace(EVERYTHING, decimals=2)) as endpoint:
        logprobs = first(endpoint, greedy(top_logprobs=4)).choices[0].logprobs
        assert np.array_equal(logprobs.top_TK, np.round(logprobs.top_TK, 2))


def test_an_id_outside_the_vocabulary_is_an_error_that_tells_no_size(endpoint):
    with pytest.raises((InputError, RefusedError)) as caught:
        endpoint.answer([greedy(logit_bias={10**6: 1.0})])
    assert str(VOCABULARY) not in str(caught.value).replace(str(10**6), "")


def test_a_text_only_interface_tells_text_only(subject):
    with subject.make(TEXT_ONLY) as endpoint:
        assert first(endpoint, greedy()).choices[0].logprobs is None
        assert endpoint.metadata().keys() <= {"id", "object", "owned_by", "created"}


def test_all_subjects_give_the_same_answers(subject):
    """The reference is the endpoint in process: the wire changes nothing but the names of tokens known by text."""
    request = greedy(reveal=Reveal.SAMPLED, top_logprobs=3, logit_bias={4: 1.5}, n=2, max_tokens=4)
    reference = fake(EVERYTHING) if subject.is_fake else word_model.local(VOCABULARY, EVERYTHING)
    expected = first(reference, request)
    with subject.make(EVERYTHING) as endpoint:
        answer = first(endpoint, request)
    for told, true in zip(answer.choices, expected.choices, strict=True):
        assert (told.text, told.finish) == (true.text, true.finish)
        assert near(subject, told.logprobs.sampled_T, true.logprobs.sampled_T)
        assert near(subject, told.logprobs.top_TK, true.logprobs.top_TK)
        if subject.by_id:
            assert np.array_equal(told.token_ids_T, true.token_ids_T)
            assert np.array_equal(told.logprobs.top_ids_TK, true.logprobs.top_ids_TK)
        else:
            assert (told.token_ids_T >= TEXT_IDS_FROM).all()
