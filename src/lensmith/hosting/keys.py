"""Where the keys that a server accepts come from, and what to say to who set them in the wrong place.

A client's own key (`LENSMITH_API_KEY`, read by `audit` and `html`) is no list of customers; one shell may hold both.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping

SERVE_KEYS = "LENSMITH_SERVE_KEYS"
GUARD_KEYS = "LENSMITH_GUARD_KEYS"
_NOT_READ = ("LENSMITH_API_KEY", "LENSMITH_API_KEYS")


def note_on_keys(variable: str, accepted: Collection[str]) -> str | None:
    """What to tell an operator whose server has no key, though the environment holds one under another name."""
    found = [name for name in _NOT_READ if os.environ.get(name)]
    if accepted or not found:
        return None
    return f"note: everybody may ask here; {found[0]} is a client's own key. Keys to accept: {variable}, or --api-key"


class ApiKeys:
    """The keys that a server accepts, and what the owner of each is called; without any, whoever reaches it may use it.

    Keys are looked up by their hash, so that the time it takes says nothing of how much of a key was right.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """`keys` may map each key to its owner's name; else a key is its own name."""
        names = keys if isinstance(keys, Mapping) else {key: key for key in keys}
        self._names = {_digest(key.encode()): name for key, name in names.items() if key}

    def __bool__(self) -> bool:
        return bool(self._names)

    def accepts(self, authorization: str | None) -> bool:
        """Whether this Authorization header opens the server."""
        return not self._names or self.owner(authorization) is not None

    def owner(self, authorization: str | None) -> str | None:
        """The name that belongs to the key in this Authorization header; None for no key, or one that is not known."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        # Web frameworks read headers as Latin-1; a key may be any text.
        return self._names.get(_digest(key.strip().encode("latin-1", "replace")))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
