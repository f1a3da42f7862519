"""A tiny DeepSeek-VL behind `lensmith serve`, asked by OpenAI's own client."""

import base64
import contextlib
import io

import numpy as np
import openai
import pytest
import torch
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.exposure import parse_exposure
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import load
from lensmith.models.families.deepseek_vl.config import tiny_config
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import IMAGE, tiny_tokenizer
from lensmith.models.inference.loading import given_options
from lensmith.serve.config import ServerConfig
from lensmith.serve.run import load_engine, running

FAMILIES = [("mlp", "original"), ("hybrid", "original"), ("hybrid", "transformers")]
TOKENS = 16


@pytest.fixture(scope="module", params=FAMILIES, ids="-".join)
def folder(request, tmp_path_factory):
    torch.set_num_threads(1)
    family, exact = request.param
    made = tmp_path_factory.mktemp("models") / "tiny-vl"
    torch.manual_seed(0)
    config = tiny_config(family, exact=Exactness(exact))
    VisionLanguageModel(config).save_pretrained(made)
    DeepseekVlProcessor.for_model(config, tiny_tokenizer(), exact=exact).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def client(folder):
    """The settings are those that the command makes."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(
            running(load_engine(ServerConfig(model=str(folder), exposure=parse_exposure("top-logprobs=5"))))
        )
        yield stack.enter_context(openai.OpenAI(base_url=url, api_key="none", max_retries=0))


@pytest.fixture(scope="module")
def local(folder):
    return load(folder, dtype=torch.float32)


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def shown(seed):
    file = io.BytesIO()
    noise(seed).save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text(words):
    return {"type": "text", "text": words}


def ask(client, messages, **options):
    return client.chat.completions.create(
        model="tiny-vl", messages=messages, **({"max_tokens": 12, "temperature": 0} | options)
    )


CONVERSATION = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [shown(1), text("What is it?")]},
    {"role": "assistant", "content": "A dog."},
    {"role": "user", "content": [text("And "), shown(2), text(" beside "), shown(3), text("?")]},
]


def test_pictures_are_answered_as_the_model_alone_answers_them(client, local):
    model, processor = local
    inputs = processor.chat(CONVERSATION)
    made = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    answer = ask(client, CONVERSATION, logprobs=True, top_logprobs=5)
    assert answer.choices[0].message.content == processor.tokenizer.decode(made, skip_special_tokens=True)
    assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1]
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 5


def test_what_is_in_a_picture_matters_and_a_stream_says_the_same(client):
    messages = [{"role": "user", "content": [shown(1), text("What is it?")]}]
    other = [{"role": "user", "content": [shown(4), text("What is it?")]}]
    whole = ask(client, messages).choices[0].message.content
    assert ask(client, other).choices[0].message.content != whole
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(client, messages, stream=True)]
    assert "".join(pieces) == whole


def test_words_alone_are_answered_too(client, local):
    answer = ask(client, [{"role": "user", "content": "Hello"}])
    inputs = local[1].chat([{"role": "user", "content": "Hello"}])
    assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1]


def test_how_pictures_are_read_is_a_setting(folder):
    read = load_engine(
        ServerConfig(model=str(folder), options=given_options(picture_decoding="as-seen"))
    ).answering.prompts.picture_reading
    assert read == "as-seen"
    with pytest.raises(InputError, match="stored or upright or as-seen"):
        load_engine(ServerConfig(model=str(folder), options=given_options(picture_decoding="sideways")))


def test_a_broken_picture_or_a_stray_placeholder_is_the_clients_mistake(client):
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,dGV4dA=="}}
    for content in ([broken, text("?")], [text(f"{IMAGE}?")]):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, [{"role": "user", "content": content}])
        assert "picture" in str(caught.value)
