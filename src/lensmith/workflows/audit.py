"""`lensmith audit`: an endpoint behind a URL, audited, recorded or compared. Here the auditor meets the HTTP client.

An audit is for one's own endpoint. An address that is not this machine's is refused unless its operator says so.
"""

import contextlib
import enum
import ipaddress
import shlex
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from lensmith.audit.change.signature import SignatureCheck, SignatureConfig, check_signature
from lensmith.audit.change.snapshot import SnapshotConfig, SnapshotInfo, take_snapshot
from lensmith.audit.estimators.image import load_image
from lensmith.audit.findings.finding import AuditReport, ReadOut, Severity
from lensmith.audit.findings.wording import public_target
from lensmith.audit.probe.capabilities import CHEAPEST_FIRST
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.querying.meter import Budget
from lensmith.audit.querying.price import load_prices
from lensmith.audit.report.files import write_report
from lensmith.audit.run import AuditConfig, audit, check_truth
from lensmith.audit.stages.runner import OnProgress as OnAuditProgress
from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError, NotExposedError
from lensmith.core.types import Message
from lensmith.endpoints.http.client import HttpClient, connect
from lensmith.openai_api import DIALECTS

_WIDEST = replace(DIALECTS["lensmith"], name="unknown")
_WIDE = (_WIDEST, replace(_WIDEST, tells_ids=False), replace(_WIDEST, tells_ids=False, names_ids=False))
"""What a server of no known kind is asked in: the first that it does not refuse."""

OnProgress = Callable[[int, int], None]
Name = TypeVar("Name", bound=enum.Enum)


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """What a person types. Names of read-outs and of the threshold as in `findings`."""

    url: str
    out: Path
    model: str | None = None
    max_queries: int = 20_000
    max_tokens: int = 5_000_000
    queries_per_s: float = 50.0
    truth: Path | None = None
    threshold: str = "medium"
    read_outs: tuple[str, ...] = ()
    contexts: str = "auto"
    prices: Path | None = None
    owned: bool = False
    seed: int = 0

    @property
    def asked_form(self) -> ContextForm | None:
        """How contexts are put; None for the first form that works."""
        return None if self.contexts == "auto" else _named(ContextForm, self.contexts, "--contexts")

    @property
    def budget(self) -> Budget:
        return Budget(queries_per_s=self.queries_per_s, max_queries=self.max_queries, max_tokens=self.max_tokens)

    def command(self, model: str) -> str:
        """The command that audits the same endpoint in the same way again, into a new folder; quoted for a shell.

        Without the API key, and without what the URL may hold of secrets.
        """
        words = ["lensmith", "audit", public_target(self.url), "--model", model]
        for option, value, usual in (
            ("--contexts", self.contexts, "auto"),
            ("--threshold", self.threshold, "medium"),
            ("--truth", self.truth, None),
            ("--prices", self.prices, None),
            ("--seed", self.seed, 0),
            ("--budget-queries", self.max_queries, AuditOptions.max_queries),
            ("--budget-tokens", self.max_tokens, AuditOptions.max_tokens),
            ("--rate", self.queries_per_s, AuditOptions.queries_per_s),
        ):
            words += [] if value == usual else [option, str(value)]
        for read_out in self.read_outs:
            words += ["--read-out", read_out]
        words += ["--i-operate-this-endpoint"] if self.owned else []
        return shlex.join([*words, "--out", "NEW-FOLDER"])


def audit_url(
    options: AuditOptions,
    *,
    api_key: str | None = None,
    on_progress: OnAuditProgress = lambda progress: None,
) -> AuditReport:
    """Audits the endpoint and writes the report's files into `options.out`.

    Raises InputError for an address that is not this machine's (unless `owned`), and for options and files that make
    no sense, before anything is asked.
    """
    require_own_host(options.url, owned=options.owned)
    threshold = _named_severity(options.threshold)
    read_outs = tuple(_named_read_out(name) for name in options.read_outs)
    form = options.asked_form
    load_prices(options.prices)
    if options.truth is not None:
        check_truth(options.truth)
    with curious_client(options.url, options.model, api_key=api_key) as client:
        config = AuditConfig(
            target=options.url,
            model=client.model,
            out=options.out,
            budget=options.budget,
            threshold=threshold,
            read_outs=read_outs,
            form=form,
            truth=options.truth,
            prices=options.prices,
            seed=options.seed,
            retest=options.command(client.model),
        )
        report = audit(client, config, on_progress, texts=client.vocabulary, server=client.dialect.name)
    write_report(report, options.out)
    return report


def snapshot_url(
    options: AuditOptions,
    out: Path,
    *,
    contexts: int,
    columns: int,
    api_key: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> SnapshotInfo:
    """Records the endpoint's outputs into `out`. Raises as `audit_url` does."""
    require_own_host(options.url, owned=options.owned)
    with curious_client(options.url, options.model, api_key=api_key) as client:
        config = SnapshotConfig(
            target=options.url,
            model=client.model,
            folder=options.out,
            contexts=contexts,
            tokens=columns,
            seed=options.seed,
            form=options.asked_form,
            budget=options.budget,
        )
        return take_snapshot(client, config, out, texts=client.vocabulary, on_progress=on_progress)


def check_signature_of_url(
    options: AuditOptions,
    image: Path,
    *,
    outputs: int,
    api_key: str | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> SignatureCheck:
    """Says whether the endpoint's outputs come from the model whose image is in a file. Raises as `audit_url` does, and
    InputError for a file that is no image."""
    require_own_host(options.url, owned=options.owned)
    known = load_image(image)
    with curious_client(options.url, options.model, api_key=api_key) as client:
        config = SignatureConfig(
            target=options.url,
            model=client.model,
            folder=options.out,
            outputs=outputs,
            seed=options.seed,
            form=options.asked_form,
            budget=options.budget,
        )
        return check_signature(client, known, config, texts=client.vocabulary, on_progress=on_progress)


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
    forms = (
        Request(prompt="a", max_tokens=1, top_logprobs=1),
        Request(messages=(Message(role="user", parts=("a",)),), max_tokens=1, top_logprobs=1),
    )
    for request in forms:
        with contextlib.suppress(NotExposedError, InputError):
            client.answer([request])
            return True
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


def _named(kind: type[Name], name: str, option: str) -> Name:
    """The member of an enum whose value a person typed, in any case."""
    values = {str(member.value).lower(): member for member in kind}
    if name.lower() not in values:
        raise InputError(f"{option}: no such value", expected=", ".join(str(m.value) for m in kind), actual=name)
    return values[name.lower()]


def _named_read_out(name: str) -> ReadOut:
    """One of those that tell logits; the others are noted whatever is tried, and cannot be tried alone."""
    named = {read_out.value.lower(): read_out for read_out in CHEAPEST_FIRST}
    if name.lower() not in named:
        known = ", ".join(sorted(read_out.value for read_out in CHEAPEST_FIRST))
        raise InputError("--read-out: no read-out that can be tried", expected=known, actual=name)
    return named[name.lower()]


def _named_severity(name: str) -> Severity:
    if name.upper() not in Severity.__members__:
        known = ", ".join(member.lower() for member in Severity.__members__)
        raise InputError("--threshold: no such value", expected=known, actual=name)
    return Severity[name.upper()]
