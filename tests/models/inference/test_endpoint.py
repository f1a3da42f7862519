"""A model in this process as an endpoint: batched = alone, cached = uncached, and every kind of read-out."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from lensmith.core.endpoint import Endpoint, Feature, Finish, RefusedError, Request, Reveal
from lensmith.core.errors import InputError, LensmithError
from lensmith.core.exposure import Exposure, Noise
from lensmith.core.types import Message, Picture
from lensmith.models.inference.answers import Failed, Piece
from lensmith.models.inference.decoder import Job
from lensmith.models.inference.endpoint import LocalEndpoint
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, VOCABULARY, tiny_llama, tiny_texts

NEAR = 1e-5
TOLD = Reveal.SAMPLED
PROMPTS = ("a", "once upon a time there was a house", "xyzzy" * 9, "tomorrow, and tomorrow", "q?")


def language_model(config=None, seed=0):
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config or tiny_llama()).eval()


@pytest.fixture
def endpoint(tokenizer):
    return LocalEndpoint(language_model(), tokenizer, slots=4)


def request(prompt="hello", **changes):
    values = {"prompt": prompt, "max_tokens": 12, "temperature": 0.0, "top_logprobs": 3, "reveal": TOLD}
    return Request(**(values | changes))


def assert_near(answers, others):
    assert len(answers) == len(others)
    for answer, other in zip(answers, others, strict=True):
        for choice, same in zip(answer.choices, other.choices, strict=True):
            assert choice.token_ids_T.tolist() == same.token_ids_T.tolist()
            assert (choice.text, choice.finish) == (same.text, same.finish)
            np.testing.assert_allclose(choice.logprobs.sampled_T, same.logprobs.sampled_T, atol=NEAR)
            np.testing.assert_allclose(choice.logprobs.top_TK, same.logprobs.top_TK, atol=NEAR)


MODELS = tiny_texts() | {
    "half sliding": Gemma2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        vocab_size=VOCABULARY,
        sliding_window=6,
        initializer_range=0.3,
        max_position_embeddings=256,
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_greedy_is_what_transformers_generates(tokenizer, kind):
    model = language_model(MODELS[kind])
    model.generation_config.eos_token_id = 2
    answers = LocalEndpoint(model, tokenizer, slots=3).answer([request(prompt, max_tokens=20) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        whole = model.generate(ids, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1] :]
        assert answer.choices[0].token_ids_T.tolist() == whole.tolist()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "changes", [{}, {"temperature": 0.9, "seed": 5, "n": 3, "top_p": 0.9}], ids=["greedy", "drawn"]
)
def test_a_batch_answers_what_each_gets_alone(tokenizer, kind, changes):
    endpoint = LocalEndpoint(language_model(MODELS[kind]), tokenizer, slots=5, cache_bytes=0)
    # Of several lengths, so that rows join and leave between steps.
    requests = [request(prompt, max_tokens=3 + 7 * (i % 3), **changes) for i, prompt in enumerate(PROMPTS * 2)]
    assert_near(endpoint.answer(requests), [endpoint.answer([each])[0] for each in requests])


def test_what_was_read_before_is_answered_alike(tokenizer):
    fresh = LocalEndpoint(language_model(), tokenizer, cache_bytes=0)
    storing = LocalEndpoint(language_model(), tokenizer)
    beginning = "the same long beginning of all these prompts, "
    requests = [request(beginning + ending) for ending in ("a", "bc", "a", "so on", "")]
    expected = [fresh.answer([each])[0] for each in requests]
    for _ in range(2):
        assert_near(storing.answer(requests), expected)
    prefill = storing.answering.prefill
    different = sum(len(ending) for ending in ("a", "bc", "so on"))
    # The empty ending is read again for its last token, whose logits are needed.
    assert prefill.read_tokens == len(beginning) + different + 1
    assert prefill.known_tokens > 5 * len(beginning)


def test_an_answer_that_runs_is_not_disturbed_by_the_store(tokenizer):
    endpoint = LocalEndpoint(language_model(), tokenizer, cache_bytes=40_000)  # room for two or three prompts
    requests = [request(f"prompt number {i % 7} of many") for i in range(30)]
    alone = LocalEndpoint(language_model(), tokenizer, cache_bytes=0)
    known = {each.prompt: alone.answer([each])[0] for each in requests[:7]}
    assert_near(endpoint.answer(requests), [known[each.prompt] for each in requests])


def test_a_prompt_longer_than_a_chunk(tokenizer):
    requests = [request("abcdefgh " * 12), request("short")]
    whole = LocalEndpoint(language_model(), tokenizer).answer(requests)
    assert_near(LocalEndpoint(language_model(), tokenizer, chunk_tokens=7).answer(requests), whole)


# --- read-outs ----------------------------------------------------------------------------------------------------


def logits_of(endpoint, ids):
    with torch.inference_mode():
        return endpoint.answering.model(torch.tensor([ids])).logits[0].double()


def test_logprobs_are_those_of_the_model(endpoint, tokenizer):
    asked = request(max_tokens=4, reveal=TOLD | Reveal.VOCABULARY, wanted_ids=(7, 3))
    [answer] = endpoint.answer([asked])
    told, ids = answer.choices[0].logprobs, answer.choices[0].token_ids_T.tolist()
    prompt_ids = tokenizer("hello")["input_ids"]
    assert answer.prompt_ids_P.tolist() == prompt_ids
    expected = torch.log_softmax(logits_of(endpoint, prompt_ids + ids), dim=-1)[len(prompt_ids) - 1 : -1].numpy()
    np.testing.assert_allclose(told.vocabulary_TV, expected, atol=NEAR)
    np.testing.assert_allclose(told.wanted_TW, expected[:, [7, 3]], atol=NEAR)
    np.testing.assert_allclose(told.sampled_T, expected[range(4), ids], atol=NEAR)
    np.testing.assert_allclose(told.top_TK, -np.sort(-expected)[:, :3], atol=NEAR)


@pytest.mark.parametrize("chunk", [4, 64])
def test_echo_tells_the_prompts_logprobs(tokenizer, chunk):
    endpoint = LocalEndpoint(language_model(), tokenizer, chunk_tokens=chunk)
    ids = tokenizer("a prompt to be told")["input_ids"]
    asked = Request(token_ids=tuple(ids), max_tokens=0, reveal=TOLD | Reveal.PROMPT, top_logprobs=2, n=2)
    [answer] = endpoint.answer([asked])
    expected = torch.log_softmax(logits_of(endpoint, ids), dim=-1).numpy()
    assert np.isnan(answer.prompt_logprobs.sampled_T[0])
    np.testing.assert_allclose(answer.prompt_logprobs.sampled_T[1:], expected[range(len(ids) - 1), ids[1:]], atol=NEAR)
    np.testing.assert_allclose(answer.prompt_logprobs.top_TK[1:], -np.sort(-expected[:-1])[:, :2], atol=NEAR)
    assert [(choice.text, choice.finish) for choice in answer.choices] == [("", Finish.LENGTH)] * 2


def test_a_bias_forces_a_token_and_an_allow_list_others(endpoint):
    [forced, listed] = endpoint.answer([request(logit_bias={77: 1e6}), request(allowed_ids=(9, 10))])
    assert set(forced.choices[0].token_ids_T.tolist()) == {77}
    assert set(listed.choices[0].token_ids_T.tolist()) <= {9, 10}


def test_an_end_token_is_told_and_has_no_text(endpoint):
    [answer] = endpoint.answer([request(logit_bias={2: 1e6})])
    [choice] = answer.choices
    assert (choice.text, choice.finish, choice.token_ids_T.tolist()) == ("", Finish.STOP, [2])
    assert len(choice.logprobs.sampled_T) == 1


def test_a_stop_string_ends_the_text_before_it(endpoint):
    [free] = endpoint.answer([request("stop", max_tokens=30)])
    text = free.choices[0].text
    stop = next(text[i : i + 2] for i in range(8, len(text)) if text.find(text[i : i + 2]) == i)
    [stopped] = endpoint.answer([request("stop", max_tokens=30, stop=("never seen", stop))])
    [choice] = stopped.choices
    assert (choice.text, choice.finish) == (text[: text.find(stop)], Finish.STOP)
    assert choice.token_ids_T.tolist() == free.choices[0].token_ids_T[: len(choice.token_ids_T)].tolist()
    assert len(choice.logprobs.sampled_T) == len(choice.token_ids_T)


def test_frozen_noise_belongs_to_the_text_and_fresh_noise_to_nobody(tokenizer):
    def told(noise, prompts):
        exposes = replace(Exposure.everything(), noise_nats=0.5, noise=noise, noise_seed=3)
        endpoint = LocalEndpoint(language_model(), tokenizer, exposes=exposes)
        return [a.choices[0].logprobs.top_TK for a in endpoint.answer([request(p, max_tokens=3) for p in prompts])]

    first, again, other = told(Noise.FROZEN, ["same", "same", "other"])
    np.testing.assert_allclose(first, again, atol=NEAR)
    assert np.abs(first - other).max() > 0.05
    first, again = told(Noise.FRESH, ["same", "same"])
    assert np.abs(first - again).max() > 0.05


def test_frozen_noise_is_the_same_whether_a_token_is_asked_for_or_echoed(tokenizer):
    exposes = replace(Exposure.everything(), noise_nats=0.5, noise=Noise.FROZEN)
    endpoint = LocalEndpoint(language_model(), tokenizer, exposes=exposes)
    ids = tuple(tokenizer("abcd")["input_ids"])
    [echoed] = endpoint.answer([Request(token_ids=ids, max_tokens=0, reveal=TOLD | Reveal.PROMPT)])
    asked = Request(token_ids=ids[:-1], max_tokens=1, wanted_ids=(ids[-1],), temperature=0)
    [answered] = endpoint.answer([asked])
    assert echoed.prompt_logprobs.sampled_T[-1] == pytest.approx(answered.choices[0].logprobs.wanted_TW[0, 0], abs=NEAR)


def test_a_closed_interface_says_so_and_refuses(tokenizer):
    closed = LocalEndpoint(language_model(), tokenizer, exposes=Exposure.text_only(), name="tiny")
    features = closed.supports().features
    assert not features & (Feature.LOGIT_BIAS | Feature.TOP_LOGPROBS | Feature.SAMPLED_LOGPROB | Feature.WANTED_IDS)
    assert Feature.PROMPT_TEXT in features
    assert dict(closed.metadata()) == {"id": "tiny"}
    assert closed.supports().vocabulary_size is None
    with pytest.raises(RefusedError):
        closed.answer([request()])
    [answer] = closed.answer([request(top_logprobs=0, reveal=Reveal.NOTHING)])
    assert answer.choices[0].logprobs is None


def test_an_open_interface_tells_its_width(endpoint):
    assert isinstance(endpoint, Endpoint)
    assert endpoint.metadata()["width"] == 32
    assert endpoint.supports().vocabulary_size == VOCABULARY


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (Request(prompt="a", logit_bias={VOCABULARY: 1.0}), "logit_bias"),
        (Request(prompt="a", wanted_ids=(VOCABULARY,)), "logprob_token_ids"),
        (Request(prompt="a", allowed_ids=(VOCABULARY,)), "allowed_token_ids"),
        (Request(token_ids=(VOCABULARY,)), "prompt"),
        (Request(prompt="long " * 600), "longer than the model"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(endpoint, asked, problem):
    with pytest.raises(InputError, match=problem):
        endpoint.answer([request(), asked])
    assert endpoint.answering.prefill.read_tokens == 0


@pytest.mark.parametrize(("part", "feature"), [("hi", Feature.MESSAGES), (Picture(data=b"x"), Feature.PICTURES)])
def test_what_the_model_cannot_read_is_refused_by_its_feature(endpoint, part, feature):
    asked = Request(messages=(Message(role="user", parts=(part,)),))
    assert not feature & endpoint.supports().features
    with pytest.raises(RefusedError) as caught:
        endpoint.answer([request(), asked])
    assert caught.value.feature is feature
    assert endpoint.answering.prefill.read_tokens == 0


def test_messages_go_through_the_chat_template(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{% for message in messages %}"
        "{% if message.role == 'assistant' %}{{ raise_exception('no answers') }}{% endif %}"
        "[{{ message.role }}]{{ message.content }}{% endfor %}!"
    )
    endpoint = LocalEndpoint(language_model(), tokenizer)
    messages = (Message(role="system", parts=("be",)), Message(role="user", parts=("a", "b")))
    [answer] = endpoint.answer([request(prompt="", messages=messages)])
    assert tokenizer.decode(answer.prompt_ids_P) == "[system]be[user]ab!"
    with pytest.raises(InputError, match="no answers"):
        endpoint.answer([request(prompt="", messages=(Message(role="assistant", parts=("a",)),))])


def test_a_model_that_computes_nonsense_says_so(endpoint):
    with torch.no_grad():
        endpoint.answering.model.get_output_embeddings().weight[5] = float("nan")
    with pytest.raises(LensmithError, match="not a number"):
        endpoint.answer([request()])


# --- pictures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def png(picture):
    def make(width_px, height_px, seed=0):
        buffer = io.BytesIO()
        picture(width_px, height_px, seed).save(buffer, "PNG")
        return Picture(data=buffer.getvalue())

    return make


def with_pictures(*parts, begun="", **changes):
    messages = [Message(role="user", parts=parts)] + ([Message(role="assistant", parts=(begun,))] if begun else [])
    return request(prompt="", messages=tuple(messages), **changes)


@pytest.fixture
def seeing(model, processor):
    return LocalEndpoint(model, processor, slots=4)


def test_pictures_are_read_as_by_the_model_itself(seeing, model, processor, png, picture):
    [answer] = seeing.answer([with_pictures(png(40, 24, 1), "and", png(16, 16, 2))])
    inputs = processor(images=[[picture(40, 24, 1), picture(16, 16, 2)]], text=["<image><image><s>"])
    assert answer.prompt_ids_P.tolist() == inputs["input_ids"][0].tolist()
    whole = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answer.choices[0].token_ids_T.tolist() == whole.tolist()


def test_pictures_in_a_batch_are_those_of_their_own_row(model, processor, png):
    endpoint = LocalEndpoint(model, processor, slots=4, cache_bytes=0)
    requests = [with_pictures(png(40, 24, seed), begun=f"{seed}") for seed in range(3)]
    requests += [with_pictures("no picture"), with_pictures(png(64, 64, 9), png(8, 8, 3))]
    answers = endpoint.answer(requests)
    assert_near(answers, [endpoint.answer([each])[0] for each in requests])
    assert len({answer.choices[0].text for answer in answers}) == len(requests)


def test_equal_pictures_are_computed_once_and_others_are_not_taken_for_them(seeing, png):
    seeing.answer([with_pictures(png(40, 24, 1), begun=text) for text in ("a", "b", "a", "c")])
    assert seeing.answering.prefill.read_pictures == 1
    same_size = seeing.answer([with_pictures(png(40, 24, seed), begun="a") for seed in (1, 2)])
    assert seeing.answering.prefill.read_pictures == 2
    assert same_size[0].choices[0].text != same_size[1].choices[0].text


def test_frozen_noise_is_not_drawn_anew_for_a_picture_that_was_saved_in_another_way(model, processor, picture):
    exposes = replace(Exposure.everything(), noise_nats=0.5, noise=Noise.FROZEN)
    endpoint = LocalEndpoint(model, processor, exposes=exposes)

    def told(seed, **how):
        buffer = io.BytesIO()
        picture(40, 24, seed).save(buffer, **how)
        [answer] = endpoint.answer([with_pictures(Picture(data=buffer.getvalue()), max_tokens=1, seed=1)])
        return answer.choices[0].logprobs.top_TK

    as_png = told(1, format="PNG")
    np.testing.assert_allclose(told(1, format="PNG", compress_level=0), as_png, atol=NEAR)
    np.testing.assert_allclose(told(1, format="BMP"), as_png, atol=NEAR)
    assert endpoint.answering.prefill.read_pictures == 1
    assert np.abs(told(2, format="PNG") - as_png).max() > 0.05


def test_a_prompt_is_cut_into_chunks_within_a_picture(model, processor, png):
    asked = [with_pictures(png(64, 64, 1), begun="this"), with_pictures(png(16, 8, 2), begun="that")]
    whole = LocalEndpoint(model, processor).answer(asked)
    assert_near(LocalEndpoint(model, processor, chunk_tokens=5).answer(asked), whole)


def test_a_placeholder_in_the_text_is_refused(seeing, png):
    for asked in (
        with_pictures(png(8, 8), begun="<image>"),
        Request(prompt="a<image>"),
        Request(token_ids=(IMAGE_TOKEN_ID,)),
    ):
        with pytest.raises(InputError, match="placeholders"):
            seeing.answer([asked])


def test_words_beside_a_picture_are_not_read_by_a_model_without_a_template(seeing, png):
    alone, beside, words, others = seeing.answer(
        [with_pictures(png(40, 24)), with_pictures("copy", png(40, 24), "!"), with_pictures("a"), with_pictures("b")]
    )
    assert alone.choices[0].text == beside.choices[0].text
    assert words.choices[0].text != others.choices[0].text


def test_a_chat_template_places_pictures_and_words(model, processor, png):
    processor = copy.deepcopy(processor)
    processor.chat_template = (
        "{% for message in messages %}{% for part in message.content %}"
        "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}<s>"
    )
    endpoint = LocalEndpoint(model, processor)
    [answer] = endpoint.answer([with_pictures("see", png(40, 24), "this")])
    visual = [IMAGE_TOKEN_ID] * endpoint.answering.prompts.prompt(with_pictures(png(40, 24))).pictures[0].tokens
    see, this = (processor.tokenizer(word)["input_ids"] for word in ("see", "this"))
    assert answer.prompt_ids_P.tolist() == [*see, *visual, *this, 1]


def test_the_model_does_not_write_a_placeholder(seeing, png):
    [answer] = seeing.answer([with_pictures(png(8, 8), logit_bias={IMAGE_TOKEN_ID: 1e6})])
    assert IMAGE_TOKEN_ID not in answer.choices[0].token_ids_T.tolist()


def test_a_row_whose_client_goes_away_leaves_the_others_as_they_were(tokenizer):
    endpoint = LocalEndpoint(language_model(), tokenizer, slots=4, cache_bytes=0)
    answering = endpoint.answering
    requests = [request(prompt, max_tokens=40) for prompt in PROMPTS[:4]]
    expected = [endpoint.answer([each])[0].choices[0].token_ids_T.tolist() for each in requests]
    decoder = answering.decoder(endpoint.exposure, slots=4, spare_columns=2)  # the cache grows while it steps
    told = [[] for _ in requests]
    jobs = [
        Job(request=each, prompt=answering.prompt(each), sink=tokens.append)
        for each, tokens in zip(requests, told, strict=True)
    ]
    for job in jobs:
        decoder.submit(job)
    for _ in range(36):
        decoder.step()
    jobs[0].cancelled = True  # its slot goes to the last row, outside of any forward pass
    while not decoder.is_idle:
        decoder.step()
    assert not any(isinstance(event, Failed) for events in told for event in events)
    tokens = [[each for event in events if isinstance(event, Piece) for each in event.token_ids] for events in told]
    assert tokens[1:] == expected[1:]
    assert len(tokens[0]) < len(expected[0])
