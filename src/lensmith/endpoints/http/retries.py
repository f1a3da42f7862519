"""How long to wait for a server, and saying so: waits between tries, and a word when nothing comes for a while."""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

QUIET_S = 10.0
"""After this long without an answer a person wants to know what is being waited for."""
_MOST_QUIET_S = 60.0

OnWait = Callable[[str], None]
log_wait: OnWait = logging.getLogger("lensmith.http").warning
"""Without any set-up, Python's logging writes warnings to stderr."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long to wait for a server that cannot answer now. Waits double from `first_wait_s`.

    A server that asks for more than `most_wait_s` is not waited for.
    """

    tries: int = 6
    first_wait_s: float = 0.5
    most_wait_s: float = 60.0

    def wait_s(self, attempt: int, named_s: float | None) -> float:
        """Before try `attempt` + 1: what the server named, else doubling, with up to a quarter more by chance."""
        usual = self.first_wait_s * 2**attempt * (1 + random.random() / 4)
        return min(named_s if named_s is not None else usual, self.most_wait_s)


class SilenceMonitor:
    """Says through `on_wait` when requests are under way and nothing has come for `quiet_s`, then ever more rarely.

    A thread of its own looks, because the one that waits for bytes cannot; it ends when nothing is under way.
    """

    def __init__(self, name: str, on_wait: OnWait, *, quiet_s: float = QUIET_S) -> None:
        self._name, self._on_wait, self._quiet_s = name, on_wait, quiet_s
        self._lock = threading.Lock()
        self._under_way = 0
        self._reason = ""
        self._received_s = self._next_s = 0.0
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """While it is entered, a request is under way."""
        with self._lock:
            self._under_way += 1
            if self._under_way == 1:
                self._rest()
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._look, name="lensmith-http-silence", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def received(self) -> None:
        """Something came."""
        with self._lock:
            self._rest()

    def busy(self, reason: str) -> None:
        """The server answered that it cannot answer now, for this reason."""
        with self._lock:
            self._reason = reason

    def close(self) -> None:
        self._stop.set()

    def _rest(self) -> None:
        self._received_s = time.monotonic()
        self._next_s, self._reason = self._quiet_s, ""

    def _look(self) -> None:
        while not self._stop.wait(self._quiet_s / 8):
            with self._lock:
                if not self._under_way:
                    self._thread = None
                    return
                quiet_s = time.monotonic() - self._received_s
                if quiet_s < self._next_s:
                    continue
                self._next_s = quiet_s + min(2 * self._next_s, _MOST_QUIET_S)
                reason = f" ({self._reason})" if self._reason else ""
            self._on_wait(f"waiting for {self._name}: no answer for {spoken_s(quiet_s)}{reason}")


def spoken_s(seconds: float) -> str:
    """A length of time as a person says it: 12 s, 3 min, 1 h, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def retry_after_s(response: httpx.Response) -> float | None:
    """The seconds that a server names; a date, which few send, counts as none."""
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
