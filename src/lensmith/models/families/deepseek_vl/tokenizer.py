"""DeepSeek-VL's tokenizer: as the published code reads it, from a folder; and a tiny one with the same special tokens.

The published folders name `LlamaTokenizerFast`, but hold a byte-level tokenizer that does not itself put the token that
begins a text. The transformers of their time added it because of the class; transformers 5.23 finds that the class does
not fit, reads the file without it, and the prompt begins one token too late. Therefore `tokenizer.json` is read as it
is, and what the class did is done here.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lensmith.core.errors import CheckpointError

BEGIN, END, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a folder of any layout: it puts BEGIN first and END nowhere, and pads on the left.

    Raises CheckpointError where there is none, it cannot be read, or it lacks one of the special tokens.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError("there is no tokenizer in this folder", expected="tokenizer.json", actual=folder)
    try:
        tokenizer = Tokenizer.from_file(str(file))
        settings = _settings(Path(folder) / "tokenizer_config.json")
    except Exception as error:  # tokenizers raises plain Exception for what it cannot read
        raise CheckpointError(f"{file}: not a tokenizer that can be read", actual=error) from error
    return _finished(tokenizer, settings, str(file))


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and the special tokens, 260 tokens, with the ids of `config.tiny_config`."""
    vocabulary = {"<unused>": 0, BEGIN: 1, END: 2, IMAGE: 3}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BEGIN, END, IMAGE])
    return _finished(tokenizer, {}, "the tiny tokenizer")


def train_tokenizer(texts: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over texts, with the published special tokens first. The same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[BEGIN, END, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _finished(tokenizer, {}, "a tokenizer made of documents")


def _finished(tokenizer: Tokenizer, settings: Mapping[str, Any], source: str) -> PreTrainedTokenizerFast:
    names = {
        "bos_token": _text(settings.get("bos_token"), BEGIN),
        "eos_token": _text(settings.get("eos_token"), END),
    }
    missing = [name for name in (*names.values(), IMAGE) if tokenizer.token_to_id(name) is None]
    if missing:
        raise CheckpointError(
            f"{source}: not DeepSeek-VL's tokenizer", expected="its special tokens", actual=f"no {', '.join(missing)}"
        )
    begin = names["bos_token"]
    # Whatever the file says: the original's class puts this one token first, and nothing at the end.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A",
        pair=f"{begin} $A {begin} $B",
        special_tokens=[(begin, tokenizer.token_to_id(begin))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_text(settings.get("pad_token"), names["eos_token"]),
        additional_special_tokens=[IMAGE],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=settings.get("model_max_length", 16384),
        **names,
    )


def _settings(file: Path) -> Mapping[str, Any]:
    values = json.loads(file.read_bytes()) if file.is_file() else {}
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return values


def _text(token: Any, default: str) -> str:
    """A token as tokenizer_config.json names it: a string, an object with `content`, or not at all."""
    name = token.get("content") if isinstance(token, dict) else token
    return name if isinstance(name, str) else default
