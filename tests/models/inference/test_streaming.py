"""Answers to pictures from one decoder, streamed and in batches: the same texts whatever else is asked."""

import io
from dataclasses import replace

import pytest
import torch

from lensmith.core.endpoint import Finish, Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Picture
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.inference.endpoint import LocalEndpoint
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, tiny_llama


def asking(*pictures, **settings):
    parts = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        parts.append(Picture(data=file.getvalue()))
    message = Message(role="user", parts=tuple(parts) or ("no picture at all",))
    return Request(messages=(message,), **{"max_tokens": 16, "temperature": 0.0} | settings)


SAMPLED = {"temperature": 0.8, "top_p": 0.95, "seed": 11, "n": 3}


@pytest.fixture
def pictures(picture):
    return [[picture(40, 24, 1)], [picture(20, 30, 2), picture(64, 8, 3)], []]


def answers(model, processor, pictures, **settings):
    """Asked together, each as (token ids, text, finish), of one model that has read nothing before."""
    endpoint = LocalEndpoint(model, processor, slots=16)
    requests = [asking(*some, **settings) for some in pictures]
    return [
        [(each.token_ids_T.tolist(), each.text, each.finish) for each in answer.choices]
        for answer in endpoint.answer(requests)
    ]


def test_greedy_is_what_transformers_generates(model, processor, pictures):
    endpoint = LocalEndpoint(model, processor)
    for some, [(ids, _, _)] in zip(pictures, answers(model, processor, pictures), strict=True):
        prompt = endpoint.answering.prompt(asking(*some))
        inputs = processor(images=[some], text=["<image>" * len(some)]) if some else {}
        inputs["input_ids"] = torch.from_numpy(prompt.token_ids_P)[None]
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[0, prompt.length :].tolist()
        assert ids == tokens


@pytest.mark.parametrize("settings", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_says_what_each_says_alone(make_model, processor, pictures, settings, seed):
    model = make_model(seed=seed)
    alone = [answers(model, processor, [some], **settings)[0] for some in pictures]
    assert answers(model, processor, pictures, **settings) == alone
    assert len({text for row in alone for _, text, _ in row}) == len(pictures) * settings.get("n", 1)


def test_rows_that_are_finished_leave_the_others_alone(make_model, processor, pictures):
    model = make_model()
    with torch.no_grad():
        model.get_output_embeddings().weight[2] *= 3  # makes the end of text likely
    settings = {"max_tokens": 40, "temperature": 1.0, "n": 8, "seed": 4}
    together = answers(model, processor, pictures, **settings)
    choices = [choice for row in together for choice in row]
    assert len({len(ids) for ids, _, finish in choices if finish is Finish.STOP}) > 3
    assert together == [answers(model, processor, [some], **settings)[0] for some in pictures]
    assert all(2 not in ids[:-1] for ids, _, _ in choices)


def test_the_seed_decides(model, processor, pictures):
    one = answers(model, processor, pictures, **SAMPLED)
    torch.manual_seed(123)
    assert answers(model, processor, pictures, **SAMPLED) == one
    assert answers(model, processor, pictures, **(SAMPLED | {"seed": 12})) != one


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_answer_in_pieces(model, processor, pictures, seed):
    endpoint = LocalEndpoint(model, processor)
    for some in pictures:
        request = asking(*some, max_tokens=30, temperature=1.5, seed=seed)
        pieces = list(endpoint.stream(request))
        assert all(pieces)
        assert "".join(pieces) == endpoint.answer([request])[0].choices[0].text
        assert all("\ufffd" not in piece or "\ufffd" in "".join(pieces) for piece in pieces[:-1])


def test_a_stream_that_is_closed_stops_the_work(model, processor, pictures):
    calls = []
    model.generation_config.eos_token_id = None
    model.language_model.register_forward_hook(lambda *_: calls.append(1))
    stream = LocalEndpoint(model, processor).stream(asking(*pictures[0], max_tokens=50))
    next(stream)
    made = len(calls)
    stream.close()
    assert len(calls) == made < 10
    assert not torch.is_inference_mode_enabled()


def test_an_error_inside_reaches_the_caller(model, processor, pictures):
    def fail(*_):
        raise RuntimeError("out of memory")

    model.generation_config.eos_token_id = None
    stream = LocalEndpoint(model, processor).stream(asking(*pictures[0]))
    next(stream)
    model.language_model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream)


def test_bad_input_is_refused_at_once(model, processor, pictures):
    endpoint = LocalEndpoint(model, processor)
    with pytest.raises(InputError, match="one answer"):
        endpoint.stream(asking(*pictures[0], **SAMPLED))
    with pytest.raises(InputError, match="not here"):
        endpoint.stream(replace(asking(), messages=(Message(role="user", parts=(Picture(url="http://x/y.png"),)),)))


def test_the_prompt_is_read_once_for_all_choices_and_the_last_token_never(model, processor, pictures):
    shapes = []
    model.generation_config.eos_token_id = None
    model.language_model.register_forward_hook(
        lambda _module, _arguments, named, _result: shapes.append(tuple(named["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    request = asking(*pictures[0], max_tokens=4, temperature=0.5, n=3)
    endpoint = LocalEndpoint(model, processor)
    length = endpoint.answering.prompt(request).length
    endpoint.answer([request])
    assert shapes == [(1, length), (3, 1), (3, 1), (3, 1)]


def test_a_text_ends_at_the_length_of_the_model(make_model, processor, picture):
    model = make_model(language=tiny_llama(max_position_embeddings=20))
    [[(ids, _, finish)]] = answers(model, processor, [[picture(32, 32)]])
    assert len(ids) == 3, "16 visual tokens and the one that begins the answer"
    assert finish is Finish.LENGTH
    with pytest.raises(InputError, match="longer than the model can read"):
        answers(model, processor, [[picture(40, 32)]])


def test_the_placeholder_is_never_written(model, processor, pictures):
    with torch.no_grad():
        model.get_output_embeddings().weight[IMAGE_TOKEN_ID] *= 50
    for row in answers(model, processor, pictures, **SAMPLED):
        assert all(IMAGE_TOKEN_ID not in ids for ids, _, _ in row)


def test_a_model_in_training_is_asked_without_dropout_and_left_in_training(make_model, processor, pictures):
    model = make_model(language=tiny_llama(attention_dropout=0.5))
    expected = answers(model, processor, pictures)
    model.train()
    assert answers(model, processor, pictures) == expected
    assert model.training
    assert model.language_model.training


def test_a_connector_with_latents_answers_too(make_model, processor, pictures):
    model = make_model(connector=PerceiverConnectorConfig(latents=4, heads=4, key_heads=2, head_width=8))
    processor.tokens_per_picture = 4
    alone = [answers(model, processor, [some], **SAMPLED)[0] for some in pictures]
    assert answers(model, processor, pictures, **SAMPLED) == alone
