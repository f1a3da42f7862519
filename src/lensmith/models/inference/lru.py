"""A store that forgets what was used longest ago, bounded in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteLru(Generic[Key, Value]):
    """Values by key, of at most `max_bytes` together as `size_of` counts them. A larger value is not kept at all."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.max_bytes = max_bytes
        self.bytes_held = 0
        self._size_of = size_of
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """The value, which counts as used now; None where there is none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def peek(self, key: Key) -> Value:
        """The value, which does not count as used. Raises KeyError where there is none."""
        return self._values[key]

    def put(self, key: Key, value: Value) -> None:
        """Keeps the value, in place of one that has the key already, and forgets others until it fits."""
        self.forget(key)
        size = self._size_of(value)
        if size > self.max_bytes:
            return
        while self.bytes_held + size > self.max_bytes:
            self.forget(next(iter(self._values)))
        self._values[key] = value
        self.bytes_held += size

    def clear(self) -> None:
        self._values.clear()
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Key]:
        """Keys, the one used last first."""
        return iter(reversed(self._values))

    def forget(self, key: Key) -> None:
        """Forgets the value, if there is one."""
        value = self._values.pop(key, None)
        if value is not None:
            self.bytes_held -= self._size_of(value)
