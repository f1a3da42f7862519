"""Fetches pictures by their addresses, many at a time, and writes down what came of each.

Each address is asked once, however often it is named; what is in the ledger is not asked again. A server that is busy
is asked again after a while, by doubling waits or as long as it says. A server's wish not to have a picture used for
training (X-Robots-Tag) is kept. Nothing is decompressed on the way, so nothing grows on the way.
"""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from lensmith.core.errors import ConfigError, ImageError
from lensmith.core.files import alone_in, sha256_of_bytes, write_atomic
from lensmith.core.images import ImageLimits, open_picture
from lensmith.core.types import OnProgress, unwatched
from lensmith.data.fetching.addresses import NotPublicError, PublicTransport
from lensmith.data.fetching.ledger import Fetched, Outcome, append_to_ledger, read_ledger
from lensmith.data.sources.stores import suffix_of

_BUSY = frozenset((429, 500, 502, 503, 504))
_GONE = frozenset((404, 410))
_OPT_OUTS = frozenset(("noai", "noimageai", "noindex", "noimageindex"))
_MOST_REDIRECTS = 5
_MOST_URL_CHARACTERS = 8192
_DECODED_AT_ONCE = 4
"""A decoded picture takes up to 12 bytes a pixel, and there may be many threads."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How pictures are fetched. `timeout_s` is for a whole address, redirects included, in each of `tries`.

    `pictures`: what is kept at most. `allow_private`: also from this machine and its network. `again`: what was not for
    good (see `Outcome`) is tried again.
    """

    concurrency: int = 32
    timeout_s: float = 20.0
    tries: int = 3
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    pictures: ImageLimits = field(default_factory=lambda: ImageLimits(max_bytes=32 << 20))
    allow_private: bool = False
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("concurrency", "tries", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: too small", expected="above 0", actual=getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class FetchReport:
    """What came of all addresses: how many there are, how many of them were `known` before, and each outcome."""

    addresses: int
    known: int
    outcomes: dict[str, int]

    def __str__(self) -> str:
        lines = [f"{self.addresses:,} addresses, {self.known:,} of them known before"]
        return "\n".join([*lines, *(f"  {count:>9,} {name}" for name, count in self.outcomes.items())])


def fetch_pictures(
    addresses: Iterable[str], folder: Path, config: FetchConfig | None = None, *, on_progress: OnProgress = unwatched
) -> FetchReport:
    """Fetches what is not known yet into `folder`. Ctrl-C ends it; the same call goes on from there.

    Raises InputError where another run fetches into the folder, or its ledger is damaged.
    """
    config = config or FetchConfig()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(dict.fromkeys(addresses))
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder))
        last = {each.url: each.outcome for each in read_ledger(folder)}
        known = {url for url, outcome in last.items() if outcome.is_final or not config.again}
        left = [url for url in wanted if url not in known]
        ledger = stack.enter_context(append_to_ledger(folder))
        done = len(wanted) - len(left)
        known_before = done
        for fetched in stack.enter_context(closing(_fetch_all(left, folder, config))):
            ledger.write(fetched.to_line())
            last[fetched.url] = fetched.outcome
            done += 1
            on_progress(done, len(wanted))
    counts = Counter(last[url].value for url in wanted)
    return FetchReport(addresses=len(wanted), known=known_before, outcomes=dict(counts.most_common()))


def _fetch_all(urls: list[str], folder: Path, config: FetchConfig) -> Generator[Fetched, None, None]:
    """What comes of addresses, as it comes. Threads are daemons: one that waits for a name server is not waited for."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for url in urls:
        waiting.put(url)
    results: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
    stopped = threading.Event()
    with PublicTransport(allow_private=config.allow_private) as transport:
        fetcher = _Fetcher(transport, folder, config, stopped)

        def work() -> None:
            while not stopped.is_set():
                try:
                    results.put(fetcher.fetch(waiting.get_nowait()))
                except queue.Empty:
                    return
                except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for it
                    results.put(error)
                    return

        try:
            for number in range(min(config.concurrency, len(urls))):
                threading.Thread(target=work, name=f"lensmith-fetch-{number}", daemon=True).start()
            for _ in urls:
                found = results.get()
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stopped.set()


class _Fetcher:
    """Fetches single addresses, from several threads."""

    def __init__(self, transport: PublicTransport, folder: Path, config: FetchConfig, stopped: threading.Event) -> None:
        self._folder, self._config, self._stopped = folder, config, stopped
        self._decoding = threading.Semaphore(_DECODED_AT_ONCE)
        self._client = httpx.Client(
            transport=transport,
            timeout=config.timeout_s,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            trust_env=False,
            headers={"user-agent": "lensmith", "accept": "image/*", "accept-encoding": "identity"},
        )

    def fetch(self, url: str) -> Fetched:
        for attempt in range(self._config.tries):
            try:
                answer = self._ask(url)
            except _FailedError as failed:
                fetched = Fetched(url=url, outcome=failed.outcome, said=failed.said)
                is_last = attempt + 1 == self._config.tries
                if failed.outcome.is_final or is_last or self._stopped.wait(self._wait_s(attempt, failed.named_s)):
                    return fetched
                continue
            return self._kept(url, answer)
        raise AssertionError("there is at least one try")

    def _wait_s(self, attempt: int, named_s: float | None) -> float:
        usual_s = self._config.first_wait_s * 2**attempt * (1 + random.random() / 4)
        return min(usual_s if named_s is None else named_s, self._config.most_wait_s)

    def _ask(self, url: str) -> bytes:
        """The content. Raises _FailedError."""
        if len(url) > _MOST_URL_CHARACTERS or not url.lower().startswith(("http://", "https://")):
            raise _FailedError(Outcome.REFUSED, "no http address")
        end_s = time.monotonic() + self._config.timeout_s
        try:
            with self._client.stream("GET", url) as response:
                _check_status(response)
                return self._content(response, end_s)
        except NotPublicError as error:
            raise _FailedError(Outcome.REFUSED, f"{error.problem}: {error.actual}") from error
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects, UnicodeError) as error:
            raise _FailedError(Outcome.REFUSED, _named(error)) from error
        except httpx.TimeoutException as error:
            raise _FailedError(Outcome.TIMEOUT, _named(error)) from error
        except httpx.HTTPError as error:
            raise _FailedError(Outcome.UNREACHABLE, _named(error)) from error

    def _content(self, response: httpx.Response, end_s: float) -> bytes:
        most = self._config.pictures.max_bytes
        said = response.headers.get("content-length", "")
        if said.isdecimal() and int(said) > most:
            raise _FailedError(Outcome.TOO_LARGE, f"{int(said):,} bytes")
        content = bytearray()
        for piece in response.iter_raw():
            content += piece
            if len(content) > most:
                raise _FailedError(Outcome.TOO_LARGE, f"more than {most:,} bytes")
            # A server may send a byte now and then for ever, and no single read is late.
            if time.monotonic() > end_s:
                raise _FailedError(Outcome.TIMEOUT, f"{len(content):,} bytes in {self._config.timeout_s:g} s")
        return bytes(content)

    def _kept(self, url: str, content: bytes) -> Fetched:
        """The picture in its file, if it is one."""
        try:
            with self._decoding:
                open_picture(content, self._config.pictures)
        except ImageError as error:
            outcome = Outcome.TOO_LARGE if "too large" in error.problem else Outcome.NOT_A_PICTURE
            return Fetched(url=url, outcome=outcome, said=error.problem)
        name = sha256_of_bytes(url.encode("utf-8", "surrogatepass"))[:32]
        file = f"{name[:2]}/{name}.{suffix_of(content)}"
        write_atomic(self._folder / file, content)
        return Fetched(url=url, outcome=Outcome.OK, file=file, size_bytes=len(content), sha256=sha256_of_bytes(content))


class _FailedError(Exception):
    """Why an address gave no content; `named_s`: how long its server asks to wait."""

    def __init__(self, outcome: Outcome, said: str, named_s: float | None = None) -> None:
        super().__init__(said)
        self.outcome, self.said, self.named_s = outcome, said, named_s


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in _BUSY:
        named = response.headers.get("retry-after", "")
        raise _FailedError(Outcome.BUSY, f"status {status}", float(named) if named.isdecimal() else None)
    if status in _GONE:
        raise _FailedError(Outcome.GONE, f"status {status}")
    if status != httpx.codes.OK:
        raise _FailedError(Outcome.DENIED, f"status {status}")
    wishes = {word.strip().lower() for line in response.headers.get_list("x-robots-tag") for word in line.split(",")}
    if refused := sorted(wishes & _OPT_OUTS):
        raise _FailedError(Outcome.OPTED_OUT, refused[0])


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
