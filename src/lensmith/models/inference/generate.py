"""Text from pictures and a prompt: streamed as it comes, or a batch of several samples each.

Beside transformers' own `generate`, which works as usual, because that draws from the global random state, so that a
sample depends on what else is in its batch. Here each sample has its own. The prompt and its pictures are read once for
all samples of it, and rows that are finished leave the batch.

Legend: B rows (prompts x samples), T tokens so far, W vocabulary.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError
from lensmith.models.inference.sampling import Dice, GenerateSettings, choose_tokens
from lensmith.models.pictures import PictureInput
from lensmith.models.processor import VisionLanguageProcessor
from lensmith.models.vlm import VisionLanguageModel

_UNFINISHED_CHARACTER = "\ufffd"


class Completion(NamedTuple):
    """One generated text, without the prompt; its token ids without the end-of-text token; why it ends."""

    text: str
    tokens: tuple[int, ...]
    finish: Finish


class TokenStep(NamedTuple):
    """One token for each row that is still running. Rows count prompt by prompt, then sample by sample."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]


def generate_stream(
    model: VisionLanguageModel,
    processor: VisionLanguageProcessor,
    images: Sequence[PictureInput],
    prompt: str,
    settings: GenerateSettings | None = None,
) -> Iterator[str]:
    """The text in pieces, each as soon as its characters are whole; together they are the completion's text.

    Nothing runs between two pieces, so whoever stops asking, or closes the iterator, stops the work. Raises InputError
    where pictures and placeholders differ in number, or more than one sample is asked for.
    """
    settings = settings or GenerateSettings()
    if settings.num_samples != 1:
        raise InputError("a stream has one sample", expected="num_samples=1", actual=settings.num_samples)
    inputs = processor(images=[list(images)], text=[prompt])
    return _pieces(processor, generate_tokens(model, inputs, settings), _end_tokens(model))


def generate_batch(
    model: VisionLanguageModel,
    processor: VisionLanguageProcessor,
    images: Sequence[Sequence[PictureInput]],
    prompts: Sequence[str],
    settings: GenerateSettings | None = None,
    *,
    on_step: Callable[[TokenStep], None] | None = None,
) -> list[list[Completion]]:
    """For each prompt, with its list of pictures, `num_samples` completions.

    In float32 a completion is the same as it would be alone. `on_step` hears of every step: for progress, or to stop by
    raising. Raises InputError where a prompt's pictures and placeholders differ in number.
    """
    settings = settings or GenerateSettings()
    inputs = processor(images=[list(pictures) for pictures in images], text=list(prompts))
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * settings.num_samples)]
    for step in generate_tokens(model, inputs, settings):
        for row, token in zip(step.rows, step.tokens, strict=True):
            tokens[row].append(token)
        if on_step is not None:
            on_step(step)
    ends = _end_tokens(model)
    completions = [_completion(processor, row, ends) for row in tokens]
    return [completions[start : start + settings.num_samples] for start in range(0, len(tokens), settings.num_samples)]


def generate_tokens(
    model: VisionLanguageModel, inputs: Mapping[str, Tensor], settings: GenerateSettings
) -> Iterator[TokenStep]:
    """Token by token, from what a processor returned with left padding. A row's last token may be the end-of-text one.

    Raises InputError where the prompt alone is longer than the model can read.
    """
    decoding = _Decoding(model, inputs, settings)
    for _ in range(decoding.max_steps):
        yield decoding.step()
        if not decoding.rows:
            return


class _Decoding:
    """The rows that still run: their cache, mask, dice and next logits."""

    def __init__(self, model: VisionLanguageModel, inputs: Mapping[str, Tensor], settings: GenerateSettings) -> None:
        self.model, self.settings = model, settings
        self.ends = _end_tokens(model)
        self.inputs: dict[str, Tensor] = {name: value.to(model.device) for name, value in inputs.items()}
        prompts, length = self.inputs["input_ids"].shape
        self.max_steps = min(settings.max_new_tokens, _room(model, length))
        self.rows = list(range(prompts * settings.num_samples))
        self.dice = [Dice(settings, row % settings.num_samples) for row in self.rows]
        self.mask_BT = self.inputs.get("attention_mask", torch.ones_like(self.inputs["input_ids"]))
        self.cache = DynamicCache(config=model.config.get_text_config())
        self.unread: list[int] = []

    @torch.inference_mode()
    def step(self) -> TokenStep:
        # Reads before it chooses, not after: a token is told as soon as it is known, and the last is never read.
        with _evaluating(self.model):
            logits_BW = self._read_tokens(self.unread) if self.unread else self._read_prompt()
        logits_BW[:, self.model.config.image_token_id] = -torch.inf
        tokens = choose_tokens(logits_BW, self.settings, self.dice)
        step = TokenStep(tuple(self.rows), tuple(tokens))
        running = [index for index, token in enumerate(tokens) if token not in self.ends]
        if len(running) < len(tokens):
            self._keep(running)
        self.unread = [tokens[index] for index in running]
        return step

    def _read_prompt(self) -> Tensor:
        positions_BT = (self.mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        inputs: dict[str, Any] = self.inputs | {"attention_mask": self.mask_BT, "position_ids": positions_BT}
        outputs = self.model(**inputs, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        samples = self.settings.num_samples
        self.mask_BT = self.mask_BT.repeat_interleave(samples, dim=0)
        if samples > 1:
            self.cache.batch_repeat_interleave(samples)
        logits_BW: Tensor = outputs.logits[:, -1].repeat_interleave(samples, dim=0)
        return logits_BW

    def _read_tokens(self, tokens: list[int]) -> Tensor:
        positions_B1 = self.mask_BT.sum(dim=1, keepdim=True)
        self.mask_BT = torch.cat([self.mask_BT, torch.ones_like(self.mask_BT[:, :1])], dim=1)
        outputs = self.model(
            input_ids=torch.tensor(tokens, device=self.model.device).unsqueeze(1),
            attention_mask=self.mask_BT,
            position_ids=positions_B1,
            past_key_values=self.cache,
            use_cache=True,
        )
        logits_BW: Tensor = outputs.logits[:, -1]
        return logits_BW

    def _keep(self, indices: list[int]) -> None:
        self.rows = [self.rows[index] for index in indices]
        self.dice = [self.dice[index] for index in indices]
        if indices:
            kept = torch.tensor(indices, device=self.mask_BT.device)
            self.mask_BT = self.mask_BT[kept]
            self.cache.batch_select_indices(kept)


def _pieces(processor: VisionLanguageProcessor, steps: Iterator[TokenStep], ends: frozenset[int]) -> Iterator[str]:
    # A window of tokens is decoded twice, without and with the newest: a token's text can depend on the one before it,
    # and a character can take several tokens.
    tokens: list[int] = []
    start, told = 0, 0
    for step in steps:
        if step.tokens[0] in ends:
            break
        tokens.append(step.tokens[0])
        before, now = _decode(processor, tokens[start:told]), _decode(processor, tokens[start:])
        if len(now) > len(before) and not now.endswith(_UNFINISHED_CHARACTER):
            start, told = told, len(tokens)
            yield now[len(before) :]
    rest = _decode(processor, tokens[start:])[len(_decode(processor, tokens[start:told])) :]
    if rest:
        yield rest


def _completion(processor: VisionLanguageProcessor, tokens: list[int], ends: frozenset[int]) -> Completion:
    if tokens and tokens[-1] in ends:
        return Completion(_decode(processor, tokens[:-1]), tuple(tokens[:-1]), Finish.STOP)
    return Completion(_decode(processor, tokens), tuple(tokens), Finish.LENGTH)


def _decode(processor: VisionLanguageProcessor, tokens: Sequence[int]) -> str:
    # Without cleaning up: a space before a full stop is part of the text.
    text: str = processor.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _end_tokens(model: VisionLanguageModel) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else ends)


def _room(model: VisionLanguageModel, length: int) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return sys.maxsize
    if length >= limit:
        raise InputError(
            "the prompt with its pictures is longer than the model can read",
            expected=f"fewer than {limit} tokens",
            actual=f"{length} tokens",
            hint="use fewer or smaller pictures",
        )
    return int(limit) - length


@contextlib.contextmanager
def _evaluating(model: VisionLanguageModel) -> Iterator[None]:
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
