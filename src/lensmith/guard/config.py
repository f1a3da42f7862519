"""The configuration of a guard: where it stands, what it lets through, and its limits."""

import enum
from dataclasses import dataclass, field

from lensmith.core.errors import ConfigError
from lensmith.core.exposure import Exposure, Noise, Taken
from lensmith.openai_api import Kind

_MIB = 1 << 20


class UnknownFields(enum.Enum):
    """What becomes of request fields that the guard does not know."""

    STRIP = "strip"
    REFUSE = "refuse"


class OnRefusal(enum.Enum):
    """What becomes of a request that asks more than the exposure allows."""

    REJECT = "reject"
    STRIP = "strip"
    """It goes on without what is not allowed; a header of the answer names what was left out."""


class OnExtraction(enum.Enum):
    """What follows when a client's requests look like an extraction."""

    LOG = "log"
    BLOCK = "block"
    """Its requests for logprobs, biases and the like are refused for a time; plain text goes on."""


class Paths(enum.Enum):
    """Which of the two paths that models answer on are open."""

    ALL = "all"
    CHAT = "chat"
    """Not `/v1/completions`, where clients write token ids, and special tokens outside the template."""
    COMPLETIONS = "completions"


class TokenNaming(enum.Enum):
    """How tokens are named in logprobs.

    Frozen noise belongs to a token, so it must not be had twice under two names.
    """

    AS_ASKED = "as-asked"
    """By text, or by id where the client asks for it (not with frozen noise, which is then keyed by text)."""
    IDS = "ids"
    """Always `token_id:123`, so that frozen noise is the one that a server with this exposure would add."""


@dataclass(frozen=True, kw_only=True)
class ResourceLimits:
    """Bounds on what a client or an upstream server can make the guard hold."""

    body_bytes: int = 16 * _MIB
    answer_bytes: int = 64 * _MIB
    event_bytes: int = 4 * _MIB
    body_values: int = 1 << 19
    """Values in a request's JSON. Honest large bodies are a few long texts; many small values hold up the guard."""
    choices: int = 4096
    """Choices that one request may ask for, over all its prompts: each has a state here while it is streamed."""
    concurrent: int = 1024
    concurrent_per_client: int | None = None
    """Requests of one client in progress at a time; None: no limit of its own."""
    clients: int = 4096
    """Clients of whom statistics are kept at a time."""
    prompts: int = 2048
    """Prompts with a bias that one client may have open within the window."""
    open_prompts: int = 16384
    """Prompts with a bias that are remembered of all clients together."""

    def __post_init__(self) -> None:
        _all_positive(self)


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long the guard waits, in seconds."""

    body_s: float = 30.0
    connect_s: float = 5.0
    silence_s: float = 300.0
    """Between two pieces of an upstream answer, and before the first."""
    total_s: float = 1800.0
    send_s: float = 60.0
    """For a client to take one piece of its answer. Who reads no more holds a place that others need."""

    def __post_init__(self) -> None:
        _all_positive(self)


@dataclass(frozen=True, kw_only=True)
class PatternConfig:
    """What one client may do within a window. None: no limit."""

    window_s: float = 600.0
    requests_per_minute: int | None = None
    bias_per_prompt: int | None = None
    """Distinct biased ids on one prompt. Below the model's width, one context's logits stay unread."""
    on_extraction: OnExtraction = OnExtraction.LOG

    def __post_init__(self) -> None:
        _all_positive(self, "on_extraction")


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """The server behind a guard. `url` is its base URL, which ends in `/v1` as clients write it."""

    url: str
    key: str = ""
    """The guard's own key there."""
    logprobs_taken: Taken = Taken.BEFORE_BIAS
    top_logprobs: int = 20
    """How many it tells at most."""

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        if scheme not in ("http", "https") or not rest.strip("/") or "@" in rest:
            raise ConfigError("upstream: not a base URL", expected="http://HOST:PORT/v1", actual=self.url)
        if self.top_logprobs < 0:
            raise ConfigError("top_logprobs: must not be negative", expected="0 or more", actual=self.top_logprobs)

    @property
    def base_url(self) -> str:
        """The base URL without a slash at its end."""
        return self.url.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """One guard in front of one server.

    `keys` maps a client's key to its name in the log; empty: everybody may ask, and clients are told apart by address.
    `pass_fields` are further request fields to send on as they come, `refuse_fields` known ones that are not let
    through.
    """

    upstream: UpstreamConfig
    exposure: Exposure = field(default_factory=Exposure)
    keys: dict[str, str] = field(default_factory=dict)
    metrics_key: str = ""
    unknown_fields: UnknownFields = UnknownFields.STRIP
    on_refusal: OnRefusal = OnRefusal.REJECT
    token_naming: TokenNaming = TokenNaming.AS_ASKED
    pass_fields: tuple[str, ...] = ()
    refuse_fields: tuple[str, ...] = ()
    paths: Paths = Paths.ALL
    remote_pictures: bool = False
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    patterns: PatternConfig = field(default_factory=PatternConfig)

    def __post_init__(self) -> None:
        if both := set(self.pass_fields) & set(self.refuse_fields):
            raise ConfigError("a field is both passed and refused", expected="one of them", actual=min(both))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What may be asked for."""
        open_kinds = {Paths.CHAT: (Kind.CHAT,), Paths.COMPLETIONS: (Kind.COMPLETION,)}
        return open_kinds.get(self.paths, tuple(Kind))

    @property
    def is_noise_frozen(self) -> bool:
        return self.exposure.noise_nats > 0 and self.exposure.noise is Noise.FROZEN

    @property
    def is_bias_out_of_reach(self) -> bool:
        """Whether logprobs are taken at another time than the exposure says, which no proxy can mend.

        Requests with both a bias and logprobs are then refused.
        """
        return self.upstream.logprobs_taken is not self.exposure.logprobs_taken


def _all_positive(config: ResourceLimits | Timeouts | PatternConfig, *others: str) -> None:
    for name in config.__dataclass_fields__:
        value = getattr(config, name)
        if name not in others and value is not None and value <= 0:
            raise ConfigError(f"{name}: must be over 0", expected="more than 0", actual=value)
