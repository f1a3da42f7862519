"""From what a person types to a guard that listens."""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from lensmith.core.config import from_dict
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, Noise, parse_exposure, spell_exposure
from lensmith.guard.config import MIB, GuardConfig
from lensmith.guard.proxy import Guard
from lensmith.hosting.run import BACKLOG, KEEP_ALIVE_S, in_thread, listen, until_told

LOG = logging.getLogger("lensmith.guard")
STOP_S = 30
"""How long a guard that is told to stop waits for answers in progress."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `lensmith guard` takes; the fields of `GuardConfig` and its parts in plain types."""

    upstream: str
    expose: str
    api_key: list[str] | None = None
    keys_file: Path | None = None
    upstream_key: str = ""
    metrics_key: str = ""
    unknown_fields: str = "strip"
    on_refusal: str = "reject"
    pass_field: list[str] | None = None
    refuse_field: list[str] | None = None
    paths: str = "all"
    remote_pictures: bool = False
    upstream_taken: str = "before-bias"
    upstream_top_logprobs: int = 20
    naming: str = "as-asked"
    requests_per_minute: int | None = None
    bias_per_prompt: int | None = None
    concurrent_per_client: int | None = None
    window_s: float = 600.0
    on_extraction: str = "log"
    body_mib: int = 16
    timeout_s: float = 300.0


def guard_config(options: Options) -> GuardConfig:
    """The configuration that the options mean. Raises ConfigError and InputError."""
    values = {
        "upstream": options.upstream,
        "upstream_key": options.upstream_key,
        "metrics_key": options.metrics_key,
        "keys": read_keys(options.api_key or [], options.keys_file),
        "unknown_fields": options.unknown_fields,
        "on_refusal": options.on_refusal,
        "pass_fields": options.pass_field or [],
        "refuse_fields": options.refuse_field or [],
        "paths": options.paths,
        "remote_pictures": options.remote_pictures,
        "upstream_taken": options.upstream_taken,
        "upstream_top_logprobs": options.upstream_top_logprobs,
        "token_naming": options.naming,
        "limits": {
            "body_bytes": options.body_mib * MIB,
            "concurrent_per_client": options.concurrent_per_client,
        },
        "timeouts": {"silence_s": options.timeout_s},
        "watch": {
            "window_s": options.window_s,
            "requests_per_minute": options.requests_per_minute,
            "bias_per_prompt": options.bias_per_prompt,
            "on_extraction": options.on_extraction,
        },
    }
    return replace(from_dict(GuardConfig, values), exposure=guard_exposure(options.expose))


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


def run_guard(options: Options, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Listens until interrupted; answers in progress are then finished. Raises InputError where the port is taken."""
    config = guard_config(options)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if not config.base_url.endswith("/v1"):
        LOG.warning("the upstream URL does not end in /v1, as most servers' do: %s", config.base_url)
    with listen(host, port) as listener:
        told = spell_exposure(replace(config.exposure, noise_seed=0)) or "the default"
        where = f"for {config.upstream}, exposes {told}"
        until_told(_server_config(config), listener, on_ready=lambda url: on_ready(f"guard on {url} {where}"))


@contextlib.contextmanager
def running_guard(config: GuardConfig) -> Iterator[str]:
    """A guard on loopback in a thread of this process, for tests and demonstrations; gives its base URL (with /v1)."""
    with listen("127.0.0.1", 0) as listener, in_thread(_server_config(config), listener) as url:
        yield url


def _server_config(config: GuardConfig) -> uvicorn.Config:
    return uvicorn.Config(
        Guard(config).app(),
        http="h11",  # the strict parser: what it passes has one reading
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        backlog=BACKLOG,
    )
