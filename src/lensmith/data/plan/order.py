"""The order of a source's records: a permutation for each pass, computed record by record and never held.

A Feistel network over the smallest even number of bits that holds the count; numbers beyond the count are walked on
until one falls within it (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). So the place of any record
is arithmetic, and memory does not grow with the corpus.
"""

from hashlib import blake2b

from lensmith.core.errors import InputError

_ROUNDS = 6
_PRIME = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1


class Order:
    """Records of a source without end: pass after pass, each in an order of its own. Raises InputError for none."""

    def __init__(self, count: int, *, seed: int, name: str) -> None:
        if count < 1:
            raise InputError(f"the source {name!r} has no records", expected="at least one", actual=count)
        self.count = count
        self._seed, self._name = seed, name
        self._bits = max(1, ((count - 1).bit_length() + 1) // 2)
        self._keys: tuple[int, ...] = ()
        self._keyed_pass = -1

    def record(self, place: int) -> int:
        """The record at `place` (0, 1, ...); `place // count` is the pass."""
        number_of_pass, index = divmod(place, self.count)
        if number_of_pass != self._keyed_pass:
            self._keys, self._keyed_pass = self._round_keys(number_of_pass), number_of_pass
        while True:
            index = self._permuted(index)
            if index < self.count:
                return index

    def _permuted(self, index: int) -> int:
        mask = (1 << self._bits) - 1
        left, right = index >> self._bits, index & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return left << self._bits | right

    def _round_keys(self, number_of_pass: int) -> tuple[int, ...]:
        named = f"{self._seed}/{self._name}/{number_of_pass}".encode()
        digest = blake2b(named, digest_size=8 * _ROUNDS).digest()
        return tuple(int.from_bytes(digest[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))


def _mixed(value: int) -> int:
    """splitmix64's finaliser: every bit of the result depends on every bit of the value."""
    value = (value * _PRIME) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)
