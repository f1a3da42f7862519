"""A guard that listens until it is interrupted or while a block runs, and how parts of its configuration are typed."""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import uvicorn

from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, Noise, parse_exposure, spell_exposure
from lensmith.guard.config import GuardConfig
from lensmith.guard.proxy import Guard
from lensmith.hosting.run import in_thread, listen, serve_until_signal, server_config

LOG = logging.getLogger("lensmith.guard")
STOP_S = 30
"""How long a guard that is told to stop waits for answers in progress."""


def run_guard(config: GuardConfig, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Listens until interrupted; answers in progress are then finished. Raises InputError where the port is taken."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if not config.upstream.base_url.endswith("/v1"):
        LOG.warning("the upstream URL does not end in /v1, as most servers' do: %s", config.upstream.base_url)
    with listen(host, port) as listener:
        exposed = spell_exposure(replace(config.exposure, noise_seed=0)) or "the default"
        where = f"for {config.upstream.url}, exposes {exposed}"
        serve_until_signal(_server_config(config), listener, on_ready=lambda url: on_ready(f"guard on {url} {where}"))


@contextlib.contextmanager
def running_guard(config: GuardConfig) -> Iterator[str]:
    """A guard on loopback in a thread of this process, for tests and demonstrations; gives its base URL (with /v1)."""
    with listen("127.0.0.1", 0) as listener, in_thread(_server_config(config), listener) as url:
        yield url


def guard_exposure(text: str) -> Exposure:
    """The exposure that `text` describes, for a guard: metadata stays hidden unless it is named.

    Frozen noise without a seed gets a secret one: whoever knows the seed can subtract the noise.
    """
    exposure = parse_exposure(text)
    words = [word.strip() for word in text.split(",")]
    if "metadata" not in words:
        exposure = replace(exposure, metadata=False)
    if exposure.noise_nats and exposure.noise is Noise.FROZEN and not exposure.noise_seed:
        exposure = replace(exposure, noise_seed=secrets.randbits(62) + 1)
    return exposure


def read_keys(keys: list[str], path: Path | None) -> dict[str, str]:
    """Keys and their names; a key without a name is called by a part of its hash. Raises InputError."""
    named = [["", key] for key in keys]
    if path is not None:
        lines = [line.split() for line in _text_of(path).splitlines()]
        named += [["", *line][-2:] for line in lines if line and not line[0].startswith("#")]
        if any(len(line) > 2 for line in lines if line and not line[0].startswith("#")):
            raise InputError(f"{path}: not a file of keys", expected="one a line: NAME KEY, or KEY alone")
    result = {key: name or f"key-{hashlib.sha256(key.encode()).hexdigest()[:8]}" for name, key in named}
    if len(result) != len(named) or not all(result):
        raise InputError("keys: a key is empty, or stands twice")
    if path is not None and not result:
        raise InputError(f"{path}: holds no key", hint="add one, or leave the option out to let everybody ask")
    return result


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a file of keys", actual=error, expected="one a line: NAME KEY, or KEY"
        ) from error


def _server_config(config: GuardConfig) -> uvicorn.Config:
    app = Guard(config).app()
    # h11 is the strict parser: what it passes has one reading.
    return server_config(app, http="h11", ws="none", proxy_headers=False, timeout_graceful_shutdown=STOP_S)
