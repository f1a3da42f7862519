"""Reads prompts, pictures included, and then one token at a time for all rows; what is equal is read once.

Prompts that were read before, whole or in part, are not read again: keys, values and the last logits stay in a store
that is bounded in bytes, found by token ids, where a picture's tokens count as equal only if its content is. Prompts
that arrive together are read together, padded on the right, where no mask is needed and positions are columns.

Legend: B rows, P prompt positions, C positions of one chunk, V vocabulary, F features of all pictures, L language
width.
"""

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lensmith.core.arrays import Float32Array, IdArray
from lensmith.core.errors import LensmithError
from lensmith.models.inference.kv_cache import KeysValues, SlotCache
from lensmith.models.inference.lru import ByteLru

CHUNK_TOKENS = 512
"""How many tokens of a prompt are read at once: what a step takes of memory, and how well it uses the processor."""
_MOST_ECHOED = 64
"""Where the logits of every position are wanted, which are large."""
MAX_BATCH_TOKENS = 4096
FEWEST_SHARED = 16
"""A shorter common prefix is cheaper to read again, in one batch, than to be looked up."""


@dataclass(frozen=True, kw_only=True)
class PreparedPicture:
    """One picture as the tower reads it: `inputs` by the processor's names. `tokens`: how many placeholders it has."""

    tokens: int
    inputs: Mapping[str, NDArray[Any]]

    @property
    def num_bytes(self) -> int:
        return sum(part.nbytes for part in self.inputs.values())

    @functools.cached_property
    def seen(self) -> bytes:
        """A hash of what the tower sees: the same for a picture that was saved in another way.

        Frozen noise belongs to it: a file can be changed without end, and each change would draw the noise anew.
        """
        digest = hashlib.sha256()
        for part in self.inputs.values():
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.digest()


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What a model reads: token ids, with `image_token_id` once for each visual token of its pictures, in order.

    `offsets_P`: the character of the request's prompt at which each token begins, where that is known and asked for.
    """

    token_ids_P: IdArray
    offsets_P: IdArray | None = None
    pictures: tuple[PreparedPicture, ...] = ()
    image_token_id: int | None = None

    @functools.cached_property
    def keys_P(self) -> IdArray:  # noqa: N802  # ends in its shape
        """Token ids in which a visual token has a number of its own, below 0, which its picture's content decides."""
        keys_P = self.token_ids_P.copy()
        if self.pictures:
            numbers = [
                -1 - ((int.from_bytes(picture.seen[:7], "big") + index) % 2**62)
                for picture in self.pictures
                for index in range(picture.tokens)
            ]
            keys_P[keys_P == self.image_token_id] = numbers
        return keys_P

    @property
    def length(self) -> int:
        return len(self.token_ids_P)


@dataclass(frozen=True, kw_only=True)
class ReadPrompt:
    """A prompt that was read: what the model remembers, its logits of the next token, how much was known before."""

    memory: KeysValues
    logits_V: Float32Array
    known_tokens: int


@dataclass(frozen=True, kw_only=True)
class _Entry:
    keys_P: IdArray
    memory: KeysValues
    logits_V: Float32Array

    @property
    def num_bytes(self) -> int:
        return self.keys_P.nbytes + self.memory.num_bytes + self.logits_V.nbytes


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What is known of a prompt: the first `length` tokens of `entry`."""

    length: int = 0
    entry: _Entry | None = None


class Prefill:
    """A model, and what it has read. Not for several threads."""

    def __init__(self, model: PreTrainedModel, *, cache_bytes: int, chunk_tokens: int = CHUNK_TOKENS) -> None:
        self.model, self.chunk_tokens = model, chunk_tokens
        self.read_tokens = 0
        self.known_tokens = 0
        self.read_pictures = 0
        # Most is for prompts; a picture's features are far smaller than the keys and values of its tokens.
        self.known_prompts: ByteLru[bytes, _Entry] = ByteLru(
            cache_bytes - cache_bytes // 8, lambda entry: entry.num_bytes
        )
        self.known_pictures: ByteLru[bytes, Tensor] = ByteLru(
            cache_bytes // 8, lambda features: features.numel() * features.element_size()
        )
        # Stands behind the end of a prompt, where nothing looks back at it; never a picture.
        self._filler = next(token for token in (0, 1) if token != getattr(model.config, "image_token_id", None))
        self._arguments = frozenset(inspect.signature(model.forward).parameters)
        self._suppressed = list(model.generation_config.suppress_tokens or ()) if model.generation_config else []

    @torch.inference_mode()
    def read(self, prompts: Sequence[Prompt]) -> list[ReadPrompt]:
        """One result for each prompt. Equal prompts, and what they have in common at their start, are read once."""
        results: dict[int, ReadPrompt] = {}
        pending = list(range(len(prompts)))
        while pending:
            pending = self._answer_known(prompts, pending, results)
            if not pending:
                break
            start, group = self._group(prompts, pending)
            results |= dict(zip(group, self._read_group([prompts[index] for index in group], start), strict=True))
            pending = [index for index in pending if index not in group]
        return [results[index] for index in range(len(prompts))]

    @torch.inference_mode()
    def read_all(self, prompt: Prompt, on_logits: Callable[[int, Float32Array], None]) -> ReadPrompt:
        """Reads one prompt from its beginning; `on_logits(start, logits_CV)` is told the logits at every position."""
        cache = DynamicCache()
        ids_1P = self._padded([prompt])
        last_V = np.empty(0, dtype=np.float32)
        step = min(self.chunk_tokens, _MOST_ECHOED)
        for begin in range(0, prompt.length, step):
            end = min(begin + step, prompt.length)
            outputs = self._forward([prompt], ids_1P, range(begin, end), cache)
            logits_CV = self._to_numpy(outputs.logits[0])
            on_logits(begin, logits_CV)
            last_V = logits_CV[-1].copy()
        self.read_tokens += prompt.length
        return self._keep(prompt, cache, 0, last_V, known=0)

    @torch.inference_mode()
    def step(self, slots: SlotCache, tokens: Sequence[int]) -> Float32Array:
        """Reads one token a row; the logits of the next (B, V)."""
        slots.make_room_for_step()
        arguments = {
            "attention_mask": slots.mask(self.model.device),
            "position_ids": self._tensor(np.array(slots.lengths, dtype=np.int64)[:, None]),
        }
        outputs = self._call(
            input_ids=self._tensor(np.array(tokens, dtype=np.int64)[:, None]),
            past_key_values=slots,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in self._arguments},
        )
        slots.stepped()
        return self._to_numpy(outputs.logits[:, -1])

    def remember(self, prompt: Prompt, tokens: Sequence[int], memory: KeysValues, logits_V: Float32Array) -> None:
        """Keeps what was read of an answer behind its prompt, for a prompt that goes on from there.

        `memory` is of the prompt and of `tokens`, `logits_V` are those of the token after them. What is known of its
        beginnings is given up for it.
        """
        keys_P = np.concatenate([prompt.keys_P, np.array(tokens, dtype=np.int64)])
        for key in list(self.known_prompts):
            known_P = self.known_prompts.peek(key).keys_P
            if _shared(known_P, keys_P) == len(known_P):
                self.known_prompts.forget(key)
        self.known_prompts.put(_digest(keys_P), _Entry(keys_P=keys_P, memory=memory, logits_V=logits_V.copy()))

    def forget(self) -> None:
        """Empties both stores."""
        self.known_prompts.clear()
        self.known_pictures.clear()

    # --- what is known ------------------------------------------------------------------------------------------------

    def _answer_known(self, prompts: Sequence[Prompt], pending: list[int], results: dict[int, ReadPrompt]) -> list[int]:
        """Results for prompts that were read before as a whole; returns the others."""
        others = []
        for index in pending:
            entry = self.known_prompts.get(_digest(prompts[index].keys_P))
            if entry is None:
                others.append(index)
                continue
            length = prompts[index].length
            self.known_tokens += length
            results[index] = ReadPrompt(memory=entry.memory, logits_V=entry.logits_V, known_tokens=length)
        return others

    def _known(self, prompt: Prompt) -> _Start:
        """The longest known beginning, one token short of the whole at most: something must be read for the logits."""
        best = _Start()
        for key in self.known_prompts:
            entry = self.known_prompts.peek(key)
            shared = min(_shared(entry.keys_P, prompt.keys_P), prompt.length - 1)
            if shared >= max(FEWEST_SHARED, best.length + 1):
                best = _Start(length=shared, entry=entry)
        return best

    def _group(self, prompts: Sequence[Prompt], pending: list[int]) -> tuple[_Start, list[int]]:
        """Prompts to read in one batch: those that go on from where the first does, and share nothing beyond that."""
        start = self._known(prompts[pending[0]])
        group = [pending[0]]
        longest = prompts[pending[0]].length - start.length
        for index in pending[1:]:
            longest_then = max(longest, prompts[index].length - start.length)
            if longest_then * (len(group) + 1) > MAX_BATCH_TOKENS:
                continue
            shared = max(_shared(prompts[index].keys_P, prompts[other].keys_P) for other in group)
            known = self._known(prompts[index])
            if known.entry is start.entry and known.length == start.length and shared < start.length + FEWEST_SHARED:
                group.append(index)
                longest = longest_then
        return start, group

    def _read_group(self, prompts: list[Prompt], start: _Start) -> list[ReadPrompt]:
        cache = DynamicCache()
        if start.entry is not None:
            known = start.entry.memory.first(start.length)
            for layer, (keys, values) in enumerate(zip(known.keys, known.values, strict=True)):
                cache.update(*(part[None].expand(len(prompts), -1, -1, -1) for part in (keys, values)), layer)
        ids_BP = self._padded(prompts)
        logits: list[Float32Array | None] = [None] * len(prompts)
        for begin in range(start.length, ids_BP.shape[1], self.chunk_tokens):
            end = min(begin + self.chunk_tokens, ids_BP.shape[1])
            ending = [row for row, prompt in enumerate(prompts) if begin < prompt.length <= end]
            columns = sorted({prompts[row].length - 1 - begin for row in ending}) or [0]
            outputs = self._forward(prompts, ids_BP, range(begin, end), cache, columns)
            for row in ending:
                column = columns.index(prompts[row].length - 1 - begin)
                logits[row] = self._to_numpy(outputs.logits[row, column][None])[0]
        self.known_tokens += start.length * len(prompts)
        self.read_tokens += sum(prompt.length - start.length for prompt in prompts)
        return [
            self._keep(prompt, cache, row, logits_V, known=start.length)
            for row, (prompt, logits_V) in enumerate(zip(prompts, logits, strict=True))
            if logits_V is not None
        ]

    def _keep(self, prompt: Prompt, cache: DynamicCache, row: int, logits_V: Float32Array, known: int) -> ReadPrompt:
        memory = KeysValues.of(cache.layers, row, slice(prompt.length))
        self.known_prompts.put(_digest(prompt.keys_P), _Entry(keys_P=prompt.keys_P, memory=memory, logits_V=logits_V))
        return ReadPrompt(memory=memory, logits_V=logits_V, known_tokens=known)

    # --- the model ----------------------------------------------------------------------------------------------------

    def _forward(
        self,
        prompts: list[Prompt],
        ids_BP: Tensor,
        places: range,
        cache: DynamicCache,
        columns: list[int] | None = None,
    ) -> Any:
        arguments: dict[str, Any] = {}
        if columns is not None:
            arguments["logits_to_keep"] = torch.tensor(columns, device=self.model.device)
        if (features_FL := self._features_at(prompts, places)) is not None:
            arguments["image_features"] = features_FL
        return self._call(
            input_ids=ids_BP[:, places.start : places.stop], past_key_values=cache, use_cache=True, **arguments
        )

    def _call(self, **inputs: Any) -> Any:
        with _evaluating(self.model):
            return self.model(**inputs)

    def _features_at(self, prompts: list[Prompt], places: range) -> Tensor | None:
        """The features whose placeholders are in these columns, row by row."""
        parts = []
        for prompt in prompts:
            if prompt.pictures:
                is_visual_P = prompt.token_ids_P == prompt.image_token_id
                first, last = (int(is_visual_P[:place].sum()) for place in (places.start, places.stop))
                if last > first:
                    parts.append(torch.cat([self._picture(picture) for picture in prompt.pictures])[first:last])
        return torch.cat(parts) if parts else None

    def _picture(self, picture: PreparedPicture) -> Tensor:
        """The visual tokens of one picture (F, L)."""
        known = self.known_pictures.get(picture.seen)
        if known is not None:
            return known
        model: Any = self.model
        given = {name: torch.from_numpy(part) for name, part in picture.inputs.items()}
        with _evaluating(self.model):
            features_FL: Tensor = model.get_image_features(**given).features_FL
        self.read_pictures += 1
        self.known_pictures.put(picture.seen, features_FL)
        return features_FL

    def _padded(self, prompts: list[Prompt]) -> Tensor:
        ids_BP = np.full((len(prompts), max(prompt.length for prompt in prompts)), self._filler, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids_BP[row, : prompt.length] = prompt.token_ids_P
        return self._tensor(ids_BP)

    def _tensor(self, ids: IdArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(ids)).to(self.model.device)

    def _to_numpy(self, logits: Tensor) -> Float32Array:
        result: Float32Array = logits.float().cpu().numpy()
        if not np.isfinite(result).all():
            raise LensmithError("the model computed something that is not a number", expected="finite logits")
        result[..., self._suppressed] = -np.inf
        return result


@contextlib.contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, also for a model that is being trained, which then stays so."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def _digest(keys_P: IdArray) -> bytes:
    return hashlib.sha256(keys_P.tobytes()).digest()


def _shared(keys_P: IdArray, other_P: IdArray) -> int:
    """How many tokens two prompts have in common at their start."""
    length = min(len(keys_P), len(other_P))
    differs = keys_P[:length] != other_P[:length]
    return int(differs.argmax()) if differs.any() else length
