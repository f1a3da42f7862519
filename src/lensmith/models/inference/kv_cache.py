"""Keys and values of rows that join and leave a batch between steps.

transformers' own cache grows by copying itself at every step and cannot take in a row. Here each layer has one buffer
with room at its right. All rows end at the same column, as with padding on the left, so that any model of transformers
sees a batch that it knows: causal and sliding masks hold, since distances between columns are distances in the text.

Legend: B rows in use, H key heads, C columns, P tokens of one row, D head width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

SPARE_COLUMNS = 256
"""Room behind the longest row when buffers are made: fewer copies for more memory."""


@dataclass(frozen=True, kw_only=True)
class KeysValues:
    """What a model remembers of P tokens: for each layer keys and values (H, P, D)."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        return int(self.keys[0].shape[1])

    @property
    def num_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.keys, *self.values))

    @classmethod
    def of(cls, layers: Iterable[Any], row: int, columns: slice) -> "KeysValues":
        """A copy of what the layers of a cache hold of one row, so that the cache can be freed."""
        held = [(_copy(layer.keys[row, :, columns]), _copy(layer.values[row, :, columns])) for layer in layers]
        return cls(keys=tuple(keys for keys, _ in held), values=tuple(values for _, values in held))

    def first(self, length: int) -> "KeysValues":
        """Of the first `length` tokens; a view."""
        return KeysValues(
            keys=tuple(keys[:, :length] for keys in self.keys),
            values=tuple(values[:, :length] for values in self.values),
        )


def _copy(part: Tensor) -> Tensor:
    return part.clone(memory_format=torch.contiguous_format)


@dataclass
class _Span:
    """The columns that all layers use: the longest row is at `first` to `end`."""

    first: int = 0
    end: int = 0


class _Layer(DynamicLayer):
    """One layer's buffers (R, H, C, D), R at least the rows in use."""

    def __init__(self, span: _Span) -> None:
        super().__init__()
        self.span = span

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes new columns behind the end and returns all columns in use with them. The end moves afterwards."""
        rows, columns = key_states.shape[0], key_states.shape[2]
        start, end = self.span.end, self.span.end + columns
        self.keys[:rows, :, start:end] = key_states
        self.values[:rows, :, start:end] = value_states
        return self.keys[:rows, :, self.span.first : end], self.values[:rows, :, self.span.first : end]

    def get_seq_length(self) -> int:
        return self.span.end - self.span.first

    def reserve(self, like: tuple[Tensor, Tensor], old: slice, new: slice, *, rows: int, columns: int) -> None:
        """New buffers of so many rows and columns; what was in the columns `old` of the present ones goes to `new`."""
        for name, tensor in zip(("keys", "values"), like, strict=True):
            heads, _, width = tensor.shape[-3:]
            buffer = tensor.new_zeros((rows, heads, columns, width))
            if (present := getattr(self, name)) is not None:
                buffer[: len(present), :, new] = present[:, :, old]
            setattr(self, name, buffer)
        self.is_initialized = True


class SlotCache(Cache):
    """The cache of up to `slots` rows. Rows are numbered from 0; where one leaves, the last takes its number."""

    layers: list[_Layer]

    def __init__(self, slots: int, *, spare_columns: int = SPARE_COLUMNS) -> None:
        self.span = _Span()
        self.slots, self.spare_columns = slots, spare_columns
        self._rows = 0
        self.lengths: list[int] = []
        super().__init__(layers=[])

    def join(self, row: KeysValues) -> int:
        """Takes in a row that was read elsewhere; its number is that of the rows before it came."""
        length = row.length
        if not self.layers:
            self.layers = [_Layer(self.span) for _ in row.keys]
        if not self.lengths:
            self.span.first = self.span.end = 0
        self._make_room(length, row)
        number = len(self.lengths)
        columns = slice(self.span.end - length, self.span.end)
        for layer, keys, values in zip(self.layers, row.keys, row.values, strict=True):
            layer.keys[number, :, columns] = keys
            layer.values[number, :, columns] = values
        self.lengths.append(length)
        self.span.first = self.span.end - max(self.lengths)
        return number

    def row(self, number: int) -> KeysValues:
        """What a row remembers, in memory of its own."""
        return KeysValues.of(self.layers, number, slice(self.span.end - self.lengths[number], self.span.end))

    def leave(self, number: int) -> None:
        """Forgets a row. The last row has its number from now on."""
        last = len(self.lengths) - 1
        if number != last:
            columns = slice(self.span.end - self.lengths[last], self.span.end)
            for layer in self.layers:
                layer.keys[number, :, columns] = layer.keys[last, :, columns]
                layer.values[number, :, columns] = layer.values[last, :, columns]
            self.lengths[number] = self.lengths[last]
        self.lengths.pop()
        self.span.first = self.span.end - max(self.lengths, default=0)

    def make_room_for_step(self) -> None:
        """Call before a forward pass of one token a row."""
        if self.layers[0].keys.shape[2] <= self.span.end:
            self._move(end=self.span.end - self.span.first)

    def stepped(self) -> None:
        """Call after that forward pass."""
        self.span.end += 1
        self.lengths = [length + 1 for length in self.lengths]

    def mask(self, device: torch.device) -> Tensor | None:
        """Which columns are real (B, C + 1), the new one included; None where all are."""
        longest = self.span.end - self.span.first
        if all(length == longest for length in self.lengths):
            return None
        columns_C = torch.arange(longest + 1, device=device)
        lengths_B = torch.tensor(self.lengths, device=device)
        return (columns_C[None, :] >= longest - lengths_B[:, None]).long()

    def _make_room(self, length: int, row: KeysValues) -> None:
        keys, rows = self.layers[0].keys, len(self.lengths) + 1
        if keys is None or keys.shape[0] < rows or keys.shape[2] < self.span.end or self.span.end < length:
            self._move(end=max(length, self.span.end - self.span.first), like=row)

    def _move(self, end: int, like: KeysValues | None = None) -> None:
        """Buffers in which the columns in use end at `end`, with spare ones behind, and with room for one more row.

        Rows are doubled, not made for all slots at once: a single answer would pay for buffers that it never uses.
        """
        span = self.span
        used = span.end - span.first
        old, new = slice(span.first, span.end), slice(end - used, end)
        columns = end + max(self.spare_columns, end // 2)
        present, needed = self._rows, len(self.lengths) + (like is not None)
        self._rows = present if needed <= present else min(self.slots, max(2 * present, needed))
        for index, layer in enumerate(self.layers):
            keys, values = (layer.keys, layer.values) if like is None else (like.keys[index], like.values[index])
            layer.reserve((keys, values), old, new, rows=self._rows, columns=columns)
        span.first, span.end = end - used, end
