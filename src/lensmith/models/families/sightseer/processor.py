"""What Sightseer models read: pages as tokens, markup in whole words and text in short pieces; and pictures.

A tag or a class name is one token, for a page has few of them and each is one decision. Text is cut into pieces of at
most three characters, so that a piece lies under one to three visual tokens and is read, not guessed. Any byte is a
fallback.

Pictures are those of `models.processor` as they are; a prompt is the pictures and BEGIN, without words.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, IMAGE, BEGIN, END = "<|pad|>", "<|image|>", "<|begin|>", "<|end|>"
MAX_PIECE_CHARACTERS = 3
TEXT_PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def markup_pieces(tags: Iterable[str], classes: Iterable[str]) -> list[str]:
    """Every tag and class name in each form that compact HTML writes it."""
    pieces = ['">', ' href="#">', '<input placeholder="']
    for tag in sorted(set(tags)):
        pieces += [f'<{tag} class="', f"<{tag}>", f"<{tag}", f"</{tag}>"]
    for name in sorted(set(classes)):
        pieces += [name, f" {name}"]
    return pieces


def train_tokenizer(
    texts: Iterable[str], *, markup: Iterable[str], vocabulary_size: int = 1024
) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the visible `texts`, with `markup` as whole tokens. Same input, same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TEXT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = list(dict.fromkeys(markup))
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(added),
        special_tokens=[PAD, IMAGE, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_PIECE_CHARACTERS + 1,  # the trainer merges what stays below it
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[IMAGE],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
