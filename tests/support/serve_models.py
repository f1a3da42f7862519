"""Tiny models behind a server. Weights are random; nothing is downloaded."""

import contextlib
import functools

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from lensmith.core.exposure import Exposure
from lensmith.models.families.sightseer import SHIPPED, load
from lensmith.models.inference.endpoint import Answering
from lensmith.serve.config import Access, ServerLimits
from lensmith.serve.engine import Engine
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


SPACED_WORDS = ("▁The", "▁capital", "▁is", "▁Paris", ".", "▁▁")


@functools.cache
def spaced_tokenizer():
    """Of Llama 2's kind: words begin with a space, which is taken off a text's first; unknown characters are bytes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": END_ID}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges = []
    for word in SPACED_WORDS:
        for end, letter in enumerate(word):
            vocabulary.setdefault(letter, len(vocabulary))
            vocabulary.setdefault(word[: end + 1], len(vocabulary))
            merges += [(word[:end], letter)] if end else []
    merges = [*dict.fromkeys(merges)]
    backend = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    to_spaces = decoders.Replace("▁", " ")
    stripped = decoders.Strip(" ", 1, 0)
    backend.decoder = decoders.Sequence([to_spaces, decoders.ByteFallback(), decoders.Fuse(), stripped])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **names)


@functools.cache
def language_model(vocabulary_size=VOCABULARY):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=vocabulary_size,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=END_ID,
        initializer_range=0.3,  # wide, so that what is read changes what is said
    )
    return AutoModelForCausalLM.from_config(config).eval()


def tiny_engine(exposure=None, *, slots=4, cache_bytes=4 << 20, max_length=None, **limits):
    answering = Answering.of(language_model(), tokenizer(), name=NAME, cache_bytes=cache_bytes, max_length=max_length)
    return Engine(answering, exposure or Exposure.everything(), slots=slots, limits=ServerLimits(**limits))


@functools.cache
def sightseer():
    torch.set_num_threads(1)
    return load(SHIPPED["sightseer_nano"])


@contextlib.contextmanager
def tiny_server(exposure=None, *, keys=(), origins=(), **options):
    """Gives the base URL and the engine."""
    engine = tiny_engine(exposure, **options)
    with running(engine, access=Access(keys=tuple(keys), origins=tuple(origins))) as url:
        yield url, engine


@contextlib.contextmanager
def spaced_server():
    """A model with `spaced_tokenizer`."""
    reading = spaced_tokenizer()
    answering = Answering.of(language_model(len(reading)), reading, name=NAME)
    with running(Engine(answering, Exposure.everything(), slots=4)) as url:
        yield url


@contextlib.contextmanager
def sightseer_server(exposure=None, *, keys=()):
    model, processor = sightseer()
    answering = Answering.of(model, processor, name="sightseer_nano")
    with running(Engine(answering, exposure or Exposure(), slots=4), access=Access(keys=tuple(keys))) as url:
        yield url
