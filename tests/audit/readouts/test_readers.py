"""Each read-out gives the true logits, costs what it says, and gives nothing where there is nothing to read."""

import dataclasses

import numpy as np
import pytest

from lensmith.audit.readouts.direct import ChosenIdsReader, WholeVocabularyReader
from lensmith.audit.readouts.forced import Force, ForcedTokenReader, PromptReader
from lensmith.core.endpoint import TEXT_IDS_FROM, Answer, Feature, RefusedError, Request
from lensmith.core.errors import InputError, NotExposedError
from lensmith.core.exposure import Exposure, Sampled, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint

ALL = Exposure.everything()
CONTEXTS = [Request(token_ids=(5, number)) for number in range(6)]
IDS = np.array([40, 3, 77, 9, 61, 12, 90])


def fake(exposes=ALL, **options):
    return FakeEndpoint(**{"vocabulary": 97, "width": 8, "seed": 3, "exposes": exposes, **options})


def truth(endpoint, contexts=CONTEXTS, ids=IDS):
    return np.array([endpoint.true_logits(context)[ids] for context in contexts], dtype=np.float64)


def centred(matrix_NM):
    return matrix_NM - matrix_NM.mean(axis=1, keepdims=True)


def error_of(reading, endpoint, contexts=CONTEXTS):
    return np.abs(centred(reading.logits_NM) - centred(truth(endpoint, contexts, reading.token_ids_M))).max()


READERS = {
    "whole vocabulary": WholeVocabularyReader(),
    "all of it as top": WholeVocabularyReader(top=97),
    "chosen ids at once": ChosenIdsReader(cap=7),
    "chosen ids in pieces": ChosenIdsReader(cap=3),
    "forced by bias": ForcedTokenReader(),
    "forced by allow-list": ForcedTokenReader(force=Force.ALLOW_LIST),
    "prompt": PromptReader(),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_logits_are_read_exactly_at_the_stated_cost(reader):
    endpoint = fake()
    reading = reader.read(endpoint, CONTEXTS, IDS)
    assert error_of(reading, endpoint) < 1e-6
    assert reading.read_fraction == 1
    assert reading.spent == reader.queries_for(6, 7, context_tokens=2)
    assert reading.spent.queries == endpoint.queries == reader.queries_for(6, 7).queries


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_block_of_rows_equals_the_rows_one_by_one(reader):
    whole = reader.read(fake(), CONTEXTS, IDS).logits_NM
    parts = [reader.read(fake(), [context], IDS).logits_NM for context in CONTEXTS]
    np.testing.assert_allclose(whole, np.concatenate(parts), atol=1e-9)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_an_endpoint_that_exposes_nothing_is_refused_or_untold(reader):
    with pytest.raises(NotExposedError):
        reader.read(fake(Exposure.text_only()), CONTEXTS, IDS)


def test_a_refusal_says_which_feature_was_refused():
    with pytest.raises(RefusedError) as refused:
        ChosenIdsReader(cap=7).read(fake(dataclasses.replace(ALL, wanted_ids=3)), CONTEXTS, IDS)
    assert Feature.WANTED_IDS in refused.value.feature


@pytest.mark.parametrize("reader", [WholeVocabularyReader(positions=5), ChosenIdsReader(cap=4, positions=5)])
def test_several_positions_of_a_greedy_answer_are_several_rows(reader):
    endpoint = fake()
    reading = reader.read(endpoint, CONTEXTS, IDS)
    assert reading.logits_NM.shape == (30, 7) and reading.spent.queries == reader.queries_for(30, 7).queries
    answers = [answer.choices[0].token_ids_T for answer in fake().answer(greedy_ones(CONTEXTS, 5))]
    longer = [
        Request(token_ids=(*context.token_ids, *written[:count].tolist()))
        for context, written in zip(CONTEXTS, answers, strict=True)
        for count in range(5)
    ]
    assert error_of(reading, endpoint, longer) < 1e-6


def greedy_ones(contexts, count):
    return [dataclasses.replace(context, max_tokens=count, temperature=0.0) for context in contexts]


def test_an_answer_that_ends_early_leaves_rows_unread():
    endpoint = fake(end_id=int(fake().answer(greedy_ones(CONTEXTS[:1], 1))[0].choices[0].token_ids_T[0]))
    reading = WholeVocabularyReader(positions=4).read(endpoint, CONTEXTS[:1], IDS)
    assert np.isfinite(reading.logits_NM).all(axis=1).tolist() == [True, False, False, False]


def test_pieces_of_unlike_replicas_are_joined_and_what_follows_a_different_token_is_dropped():
    endpoint = fake(replicas=3, replica_spread=0.5)
    reading = ChosenIdsReader(cap=3, positions=6).read(endpoint, CONTEXTS, IDS)
    assert any("does not repeat itself" in note for note in reading.notes)
    assert any("did not repeat itself" in note for note in reading.notes)
    assert reading.read_fraction < 1
    assert not any(ChosenIdsReader(cap=3, positions=6).read(fake(), CONTEXTS, IDS).notes)


def test_a_top_that_is_cut_gives_the_columns_that_all_rows_hold():
    endpoint = fake(dataclasses.replace(ALL, top_logprobs=80))
    reader = WholeVocabularyReader(top=80)
    common = reader.common_ids(endpoint, CONTEXTS)
    assert 10 < len(common) < 80
    assert error_of(reader.read(endpoint, CONTEXTS, common), endpoint) < 1e-6
    missing = reader.read(endpoint, CONTEXTS, np.arange(97))
    assert set(np.flatnonzero(np.isfinite(missing.logits_NM).all(axis=0))) == set(common.tolist())


def test_no_common_column_is_an_error():
    with pytest.raises(NotExposedError, match="every context"):
        WholeVocabularyReader(top=1).common_ids(fake(), CONTEXTS)


def test_padded_ids_are_unread_and_not_numbers():
    endpoint = fake(padded_vocabulary=5)
    ids = np.array([4, 98, 200])
    reading = WholeVocabularyReader().read(endpoint, CONTEXTS, ids)
    assert np.isfinite(reading.logits_NM[:, 0]).all() and np.isnan(reading.logits_NM[:, 2]).all()


# --- forced tokens ------------------------------------------------------------------------------------------------


def test_a_masked_sampled_token_is_unread_unless_it_is_in_the_top():
    endpoint = fake(dataclasses.replace(ALL, top_logprobs=5, sampled_logprob=Sampled.MASKED))
    reading = ForcedTokenReader().read(endpoint, CONTEXTS, np.arange(97))
    told_NM = np.isfinite(reading.logits_NM)
    assert (told_NM.sum(axis=1) == 5).all()
    logits_NV = np.array([endpoint.true_logits(context) for context in CONTEXTS])
    for row, told_V in enumerate(told_NM):
        assert set(np.flatnonzero(told_V)) == set(np.argsort(-logits_NV[row])[:5])


def test_the_mask_as_a_number_is_not_read_as_a_logprob():
    class Masked(FakeEndpoint):
        def answer(self, requests):
            return [
                with_sampled(answer, -9999.0) if request.logit_bias else answer
                for request, answer in zip(requests, super().answer(requests), strict=True)
            ]

    endpoint = Masked(vocabulary=97, width=8, exposes=ALL)
    assert np.isnan(ForcedTokenReader().read(endpoint, CONTEXTS, IDS).logits_NM).all()


def with_sampled(answer: Answer, value: float) -> Answer:
    choice = answer.choices[0]
    logprobs = dataclasses.replace(choice.logprobs, sampled_T=np.full(1, value))
    return dataclasses.replace(answer, choices=(dataclasses.replace(choice, logprobs=logprobs),))


@pytest.mark.parametrize("bias", [100.0, 4.0])
@pytest.mark.parametrize("ids", [IDS, IDS[:1]])
def test_logprobs_after_the_bias_are_not_taken_for_the_forced_tokens_own(bias, ids):
    endpoint = fake(dataclasses.replace(ALL, logprobs_taken=Taken.AFTER_BIAS))
    with pytest.raises(NotExposedError, match="move with the bias"):
        ForcedTokenReader(bias=bias).read(endpoint, CONTEXTS, ids)


def test_an_allow_list_that_renormalises_is_not_taken_for_the_models_distribution():
    endpoint = fake(dataclasses.replace(ALL, logprobs_taken=Taken.AFTER_BIAS))
    with pytest.raises(NotExposedError, match="not the model's distribution"):
        ForcedTokenReader(force=Force.ALLOW_LIST).read(endpoint, CONTEXTS, IDS)


def test_a_bias_too_small_to_force_a_token_leaves_it_unread():
    endpoint = fake()
    reading = ForcedTokenReader(bias=1.0).read(endpoint, CONTEXTS, np.arange(97))
    read_NM = np.isfinite(reading.logits_NM)
    logits_NV = np.array([endpoint.true_logits(context) for context in CONTEXTS])
    assert (read_NM == (logits_NV + 1.0 > logits_NV.max(axis=1, keepdims=True))).all()


class ByText(FakeEndpoint):
    """Names tokens by numbers of its own, as a client does whose server tells texts; ids 12 and 13 share a text."""

    def answer(self, requests):
        return [renamed(answer) for answer in super().answer(requests)]


def renamed(answer: Answer) -> Answer:
    choice = answer.choices[0]
    named_T = TEXT_IDS_FROM + 1000 - np.where(choice.token_ids_T == 13, 12, choice.token_ids_T)
    return dataclasses.replace(answer, choices=(dataclasses.replace(choice, token_ids_T=named_T),))


def test_tokens_named_by_text_are_told_apart_and_shared_texts_are_left_out():
    endpoint = ByText(vocabulary=97, width=8, seed=3, exposes=ALL)
    ids = np.array([40, 12, 13, 77])
    reading = ForcedTokenReader().read(endpoint, CONTEXTS, ids)
    assert np.isfinite(reading.logits_NM).all(axis=0).tolist() == [True, False, False, True]


# --- prompts ------------------------------------------------------------------------------------------------------


def test_tokens_are_placed_in_a_text_by_their_text():
    endpoint = fake()
    contexts = [Request(prompt=text) for text in ("abc", "one two", "x")]
    texts = {int(token_id): endpoint.tokens.text(int(token_id)) for token_id in IDS}
    reading = PromptReader(texts=texts).read(endpoint, contexts, IDS)
    read_NM = np.isfinite(reading.logits_NM)
    assert read_NM.any()
    expected_NM = np.array([endpoint.true_logits(context)[IDS] for context in contexts])
    difference_NM = reading.logits_NM - expected_NM
    for row_M in difference_NM:
        assert np.ptp(row_M[np.isfinite(row_M)]) < 1e-5


def test_a_text_that_joins_the_prompt_is_unread():
    endpoint = fake()
    (wrong, right) = (int(IDS[0]), int(IDS[1]))
    longer = int(IDS[2])
    text = endpoint.tokens.text
    texts = {wrong: text(right), right: text(right), longer: text(right) + text(longer)}
    reading = PromptReader(texts=texts).read(endpoint, [Request(prompt="abc")], np.array([wrong, right, longer]))
    assert np.isnan(reading.logits_NM[0]).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("reader", "contexts"),
    [
        (PromptReader(), [Request(prompt="a")]),
        (PromptReader(texts={}), [Request(prompt="a")]),
        (ChosenIdsReader(cap=1), CONTEXTS),
    ],
)
def test_what_cannot_be_asked_is_an_input_error(reader, contexts):
    with pytest.raises(InputError):
        reader.read(fake(), contexts, IDS)


@pytest.mark.parametrize("ids", [[], [1, 1], [-1], [[1]]])
def test_columns_must_be_different_ids(ids):
    with pytest.raises(InputError):
        WholeVocabularyReader().read(fake(), CONTEXTS, np.array(ids, dtype=np.int64))
