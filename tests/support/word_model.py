"""A tiny random language model whose tokens are named as the fake's are, in process and behind the real server."""

import contextlib
import functools
from collections.abc import Iterator

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.tokens import FakeTokens
from lensmith.models.inference.endpoint import Answering, LocalEndpoint
from lensmith.serve.config import ServerLimits
from lensmith.serve.engine import Engine
from lensmith.serve.run import running

TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@functools.cache
def tokenizer(size: int) -> PreTrainedTokenizerFast:
    names = FakeTokens(size)
    words = Tokenizer(models.WordLevel({names.text(each): each for each in range(size)}, unk_token=names.text(0)))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(" [a-z]+"), behavior="isolated")
    words.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=TEMPLATE)


@functools.cache
def model(size: int) -> torch.nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=size,
        max_position_embeddings=128,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.3,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def local(size: int, exposure: Exposure) -> LocalEndpoint:
    return LocalEndpoint(model(size), tokenizer(size), exposes=exposure, name="fake")


@contextlib.contextmanager
def served(size: int, exposure: Exposure) -> Iterator[str]:
    answering = Answering.of(model(size), tokenizer(size), name="fake")
    with running(Engine(answering, exposure, slots=4, limits=ServerLimits())) as url:
        yield url
