"""`openai`'s own client against the server: chat with a picture, streaming, logprobs, bias, errors."""

import base64
import io

import openai
import pytest
from PIL import Image

from lensmith.core.exposure import parse_exposure
from lensmith.data.webpages.grammar.pages import VIEWPORT_WIDTH_PX
from tests.support.serve_models import NAME, sightseer, sightseer_server, tiny_server


@pytest.fixture(scope="module")
def seeing():
    with sightseer_server(keys=["key"]) as url:
        yield openai.OpenAI(base_url=url, api_key="key", max_retries=0)


@pytest.fixture(scope="module")
def writing():
    with tiny_server(parse_exposure("top-logprobs=5")) as (url, _):
        yield openai.OpenAI(base_url=url, api_key="any", max_retries=0)


def page():
    """Something like a page: a bar, a heading, a box."""
    picture = Image.new("RGB", (VIEWPORT_WIDTH_PX, 120), "white")
    picture.paste("navy", (0, 0, VIEWPORT_WIDTH_PX, 24))
    picture.paste("black", (20, 50, 160, 62))
    picture.paste("silver", (20, 80, 300, 110))
    return picture


def asking(picture, text=None):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": address}}]
    return [{"role": "user", "content": content if text is None else [*content, {"type": "text", "text": text}]}]


def test_chat_with_a_picture_says_what_the_model_says(seeing):
    model, processor = sightseer()
    prompt = f"{processor.image_token}{processor.tokenizer.bos_token}"
    inputs = processor(images=[[page()]], text=[prompt])
    tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    answer = seeing.chat.completions.create(
        model="sightseer_nano", messages=asking(page()), max_tokens=24, temperature=0, logprobs=True, top_logprobs=3
    )
    [choice] = answer.choices
    assert choice.message.content == expected
    content = choice.logprobs.content
    assert len(content) == 24
    for entry in content:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs)
        assert len(entry.top_logprobs) == 3
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == expected
    assert answer.usage.completion_tokens == 24


def test_a_streamed_chat_with_a_picture(seeing):
    fields = {"model": "sightseer_nano", "messages": asking(page()), "max_tokens": 16, "temperature": 0}
    whole = seeing.chat.completions.create(**fields)
    chunks = list(
        seeing.chat.completions.create(**fields, stream=True, logprobs=True, stream_options={"include_usage": True})
    )
    assert chunks[-1].usage == whole.usage
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(delta.delta.content or "" for delta in deltas) == whole.choices[0].message.content
    assert sum(len(delta.logprobs.content) for delta in deltas if delta.logprobs) == 16
    assert len(deltas) > 8
    assert deltas[-1].finish_reason == "length"


def test_another_picture_gets_another_answer(seeing):
    fields = {"model": "sightseer_nano", "max_tokens": 12, "temperature": 0}
    one, other = (
        seeing.chat.completions.create(**fields, messages=asking(picture)).choices[0].message.content
        for picture in (page(), page().rotate(180))
    )
    assert one != other


def test_a_bias_steers_and_a_seed_repeats(writing):
    fields = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    forced = writing.chat.completions.create(**fields, logit_bias={"70": 100}, temperature=0)
    assert len(set(forced.choices[0].message.content)) == 1
    drawn = [writing.chat.completions.create(**fields, seed=seed, n=2) for seed in (1, 1, 2)]
    texts = [[choice.message.content for choice in answer.choices] for answer in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]


def test_a_history_goes_on_after_an_assistant_that_said_nothing_or_refused(writing):
    def answer(*turns):
        messages = [{"role": "user", "content": "hi"}, *turns, {"role": "user", "content": "go on"}]
        fields = {"model": NAME, "messages": messages, "max_tokens": 8, "temperature": 0}
        return writing.chat.completions.create(**fields).choices[0].message.content

    assert answer({"role": "assistant", "content": None}) == answer({"role": "assistant", "content": ""})
    assert answer({"role": "assistant", "refusal": "No."}) == answer({"role": "assistant", "content": "No."})
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    with pytest.raises(openai.BadRequestError, match="knows no calls of tools") as refused:
        answer({"role": "assistant", "content": None, "tool_calls": [call]})
    assert refused.value.param == "messages"
    assert "messages[1].tool_calls" in refused.value.message


def test_penalties_move_what_is_written(writing):
    fields = {"model": NAME, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "temperature": 0}
    fields |= {"logit_bias": {"70": 8}}
    plain, *penalised = (
        writing.chat.completions.create(**fields, **penalties).choices[0].message.content
        for penalties in (
            {"presence_penalty": 0, "extra_body": {"repetition_penalty": 1}},
            {"frequency_penalty": 2},
            {"presence_penalty": 2},
            {"extra_body": {"repetition_penalty": 1.9}},
        )
    )
    assert len({plain, *penalised}) == 4, "each has a meaning of its own"
    assert all(len(set(text)) > len(set(plain)) for text in penalised), "and all of them widen the choice"


def test_completions_with_logprobs_echo_and_stop(writing):
    fields = {"model": NAME, "prompt": "hello", "max_tokens": 10, "temperature": 0}
    answer = writing.completions.create(**fields, logprobs=2)
    told = answer.choices[0].logprobs
    assert len(told.token_logprobs) == len(told.top_logprobs) == len(told.tokens) == 10
    assert all(len(position) <= 2 for position in told.top_logprobs)
    text = answer.choices[0].text
    stop = text[4]
    stopped = writing.completions.create(**fields, stop=[stop]).choices[0]
    assert (stopped.text, stopped.finish_reason) == (text[: text.index(stop)], "stop")
    echoed = writing.completions.create(**fields, echo=True).choices[0].text
    assert echoed == "hello" + text


def test_errors_are_those_that_the_client_knows(seeing, writing):
    with pytest.raises(openai.BadRequestError) as refused:
        writing.completions.create(model=NAME, prompt="x", logprobs=6)
    assert refused.value.code == "refused:top_logprobs"
    assert refused.value.param == "top_logprobs"
    with pytest.raises(openai.NotFoundError):
        writing.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.AuthenticationError):
        seeing.with_options(api_key="wrong").models.list()
    assert [model.id for model in writing.models.list()] == [NAME]
    assert writing.models.retrieve(NAME).id == NAME
