"""`lensmith audit`: an endpoint behind a URL, audited, recorded or compared. Here the auditor meets the HTTP client.

An audit is for one's own endpoint. An address that is not this machine's is refused unless its operator says so.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from lensmith.audit.change.signature import SignatureCheck, SignatureConfig, check_signature
from lensmith.audit.change.snapshot import SnapshotConfig, SnapshotInfo, take_snapshot
from lensmith.audit.estimators.image import load_image
from lensmith.audit.findings.finding import AuditReport
from lensmith.audit.report.files import write_report
from lensmith.audit.run import AuditConfig, audit
from lensmith.audit.stages.runner import OnProgress as OnAuditProgress
from lensmith.core.endpoint import RefusedError, Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, OnProgress, unwatched
from lensmith.endpoints.http.client import HttpClient, connect
from lensmith.openai_api import DIALECTS, MalformedAnswerError

_WIDEST = replace(DIALECTS["lensmith"], name="unknown")
_WIDE = (_WIDEST, replace(_WIDEST, returns_ids=False), replace(_WIDEST, returns_ids=False, names_ids=False))
"""What a server of no known kind is asked in: the first that it does not refuse."""

Config = TypeVar("Config", AuditConfig, SnapshotConfig, SignatureConfig)


def audit_url(
    config: AuditConfig,
    *,
    owned: bool = False,
    api_key: str | None = None,
    retest: Callable[[str], str] = lambda model: "",
    on_progress: OnAuditProgress = lambda progress: None,
) -> AuditReport:
    """Audits the endpoint at `config.session.target` and writes the report's files into the session's folder.

    `retest` makes the command that checks a cure, of the model's name. Raises InputError for an address that is not
    this machine's (unless `owned`), before anything is asked.
    """
    with _client_of(config, owned=owned, api_key=api_key) as client:
        config = _of_model(config, client)
        config = replace(config, session=replace(config.session, retest=retest(client.model)))
        report = audit(client, config, on_progress, texts=client.vocabulary, server=client.dialect.name)
    write_report(report, config.session.folder)
    return report


def snapshot_url(
    config: SnapshotConfig,
    out: Path,
    *,
    owned: bool = False,
    api_key: str | None = None,
    on_progress: OnProgress = unwatched,
) -> SnapshotInfo:
    """Records the endpoint's outputs into `out`. Raises as `audit_url` does."""
    with _client_of(config, owned=owned, api_key=api_key) as client:
        return take_snapshot(client, _of_model(config, client), out, texts=client.vocabulary, on_progress=on_progress)


def check_signature_of_url(
    config: SignatureConfig,
    image: Path,
    *,
    owned: bool = False,
    api_key: str | None = None,
    on_progress: OnProgress = unwatched,
) -> SignatureCheck:
    """Says whether the endpoint's outputs come from the model whose image is in a file. Raises as `audit_url` does, and
    InputError for a file that is no image."""
    known = load_image(image)
    with _client_of(config, owned=owned, api_key=api_key) as client:
        config = _of_model(config, client)
        return check_signature(client, known, config, texts=client.vocabulary, on_progress=on_progress)


@contextlib.contextmanager
def _client_of(config: Config, *, owned: bool, api_key: str | None) -> Iterator[HttpClient]:
    session = config.session
    require_own_host(session.target, owned=owned)
    with curious_client(session.target, session.model or None, api_key=api_key) as client:
        yield client


def _of_model(config: Config, client: HttpClient) -> Config:
    """The same with the model's name, which may be the only one that the server lists."""
    return replace(config, session=replace(config.session, model=client.model))


@contextlib.contextmanager
def curious_client(url: str, model: str | None, *, api_key: str | None = None) -> Iterator[HttpClient]:
    """A client that asks for all that any known server tells.

    A server that says nothing of itself (a gateway hides it) is asked in the widest dialect: fields that it does not
    know it ignores, and what then comes back shows that. One that refuses unknown fields is asked plainly.
    """
    with connect(url, model, api_key=api_key) as client:
        if client.dialect.name != "compatible":
            yield client
            return
        for dialect in _WIDE:
            with connect(url, client.model, api_key=api_key, dialect=dialect) as wide:
                if _answers(wide):
                    yield wide
                    return
        yield client


def _answers(client: HttpClient) -> bool:
    """Whether the server takes a plain question in the client's dialect, by either route.

    Raises InputError where both routes fail with one, such as AccessError: what no other dialect mends is no refusal.
    """
    forms = (
        Request(prompt="a", max_tokens=1, top_logprobs=1),
        Request(messages=(Message(role="user", parts=("a",)),), max_tokens=1, top_logprobs=1),
    )
    failures: list[RefusedError | InputError] = []
    for request in forms:
        try:
            client.answer([request])
        except (RefusedError, InputError) as error:
            failures.append(error)
        except MalformedAnswerError:  # it took the question; what it leaves out of its answers is the probe's to find
            return True
        else:
            return True
    if not any(isinstance(failure, RefusedError) for failure in failures):
        raise failures[0]
    return False


def require_own_host(url: str, *, owned: bool) -> None:
    """Raises InputError unless every address that the URL's host stands for is this machine's, or it is `owned`."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("this is no address of an endpoint", expected="http://HOST:PORT/v1", actual=url)
    if owned:
        return
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"{parts.hostname} has no address", actual=error) from error
    foreign = sorted({str(address[0]) for *_, address in found if not _is_own(str(address[0]))})
    if foreign:
        raise InputError(
            f"{parts.hostname} is not this machine",
            expected="an address of this machine: an audit is for one's own endpoint",
            actual=", ".join(foreign),
            hint="add --i-operate-this-endpoint if it is yours to audit",
        )


def _is_own(address: str) -> bool:
    """Only an address of one of this machine's interfaces can be bound."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    if parsed.is_loopback:
        return True
    if parsed.is_unspecified or parsed.is_multicast:
        return False
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
