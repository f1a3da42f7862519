"""Where the keys that a server accepts come from, and what to say to who set them in the wrong place.

A client's own key (`LENSMITH_API_KEY`, read by `audit` and `html`) is no list of customers; one shell may hold both.
"""

import hmac
import os
from collections.abc import Collection, Iterable

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
    """The keys that a server accepts; without any, whoever reaches it may use it."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = [key.encode() for key in keys if key]

    def accepts(self, authorization: str | None) -> bool:
        """Whether this Authorization header opens the server. Takes as long for a wrong key as for a right one."""
        if not self._keys:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        matches = [hmac.compare_digest(key, given.strip().encode("utf-8", "replace")) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)
