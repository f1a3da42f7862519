"""Tiny models behind a server. Weights are random; nothing is downloaded."""

import contextlib
import functools

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lensmith.core.exposure import Exposure
from lensmith.models.families.sightseer import load, shipped_model
from lensmith.models.local import Answering
from lensmith.serve.engine import Engine
from lensmith.serve.limits import Limits
from lensmith.serve.run import running

NAME = "tiny"
VOCABULARY = 259
END_ID = 2
CHAT_TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"


@functools.cache
def tokenizer():
    """Bytes, and three special tokens."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": END_ID}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    bytes_only = Tokenizer(models.BPE(vocabulary, []))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bytes_only, chat_template=CHAT_TEMPLATE, **names)


@functools.cache
def language_model():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=END_ID,
        initializer_range=0.3,  # wide, so that what is read changes what is said
    )
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_engine(exposure=None, *, slots=4, cache_bytes=4 << 20, max_length=None, **limits):
    answering = Answering.of(language_model(), tokenizer(), name=NAME, cache_bytes=cache_bytes, max_length=max_length)
    return Engine(answering, exposure or Exposure.everything(), slots=slots, limits=Limits(**limits))


@functools.cache
def sightseer():
    torch.set_num_threads(1)
    return load(shipped_model())


@contextlib.contextmanager
def tiny_server(exposure=None, *, keys=(), **options):
    """Gives the base URL and the engine."""
    engine = tiny_engine(exposure, **options)
    with running(engine, keys=keys) as url:
        yield url, engine


@contextlib.contextmanager
def sightseer_server(exposure=None, *, keys=()):
    model, processor = sightseer()
    answering = Answering.of(model, processor, name="sightseer_nano")
    with running(Engine(answering, exposure or Exposure(), slots=4), keys=keys) as url:
        yield url
