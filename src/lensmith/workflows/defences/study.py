"""What each defence costs an attacker, and what it costs an honest user: on the same logits, through the same code.

The defences are those of the two leak papers (Carlini et al., arXiv 2403.06634, section 8; Finlayson et al., arXiv
2403.09539) and those that servers have today, each written as an `Exposure`. For the attacker a few logits are really
read, by an audit's own readers through `core.exposure.apply`, which gives the precision and the queries a logit; then
the width is looked for in a matrix with errors of that kind, larger and averaged more often until it shows. Queries of
that matrix are counted and not sent. For the user: how far what is told lies from the truth, whether the text changes,
and which ordinary requests are still served. Two rows are controls: no defence (costs the user nothing) and text alone
(leaves nothing to read).

What metadata tell of a model (P0) and what rankings tell (P8, an approximate head only) are not matters of logits: P8
is listed, neither is priced.

Legend: N contexts, V vocabulary, M tokens of the matrix, R rows of the block that is read.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lensmith.audit.estimators.width import Status, estimate_width
from lensmith.audit.findings.cures import exposed_read_outs
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.probe.capabilities import YIELDS, Probed, Telling
from lensmith.audit.readouts.base import LogitReader
from lensmith.audit.readouts.choose import reader_for
from lensmith.core.arrays import Float64Array, FloatArray, IdArray
from lensmith.core.endpoint import RefusedError, Request, Reveal
from lensmith.core.errors import InputError, NotExposedError, ShapeError
from lensmith.core.exposure import Exposure, Noise, apply, log_softmax
from lensmith.endpoints.fake.endpoint import LogitsEndpoint
from lensmith.workflows.defences.cases import HONEST, Defence, common_defences, refused_requests

_BLOCK_ROWS, _BLOCK_COLUMNS = 4, 48
_FEWEST_TOKENS = 8
_USER_ROWS = 64
_MOST_IDS = 128
"""Chosen ids that one request names where there is no limit: vLLM's own."""
_MOST_TOP = 20
_MOST_BIASED = 300
_LARGEST_BIAS = 100.0
_SIZES = ((1.25, 2), (2, 4), (4, 8))
"""Contexts and tokens over the width, tried from the cheapest."""
_REPEATS = (1, 4, 16, 64, 256, 1024)
_EXACT_NATS = 1e-9
_LEAST_READ = 0.5


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One read-out that is left, as measured on a block.

    `read_fraction` of the block's logits were told at all; `bits` is log2 of their range over `rms_nats`, None where
    less than half were. `width_queries`: what showing the width takes (None: it did not show, with up to `tried`
    queries), from `contexts` contexts, each asked `repeats` times.
    """

    read_out: ReadOut
    read_fraction: float = 0.0
    rms_nats: float | None = None
    bits: float | None = None
    queries_per_logit: float | None = None
    width_queries: int | None = None
    tried: int = 0
    contexts: int = 0
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class User:
    """What an honest user has.

    `kl_nats` is the mean KL divergence of the told distribution (renormalised) from the true one, `top_changed` the
    part of contexts whose likeliest token is told wrongly; None where no logprob is told. `text_changed` is the part
    whose greedy token is another: 0 for all that touches only what is told. `refused` names requests no longer served.
    """

    kl_nats: float | None
    top_changed: float | None
    text_changed: float
    refused: tuple[str, ...]

    @property
    def served(self) -> int:
        return len(HONEST) - len(self.refused)


@dataclass(frozen=True, kw_only=True)
class DefenceRow:
    """One defence with both sides."""

    defence: Defence
    attacks: tuple[Attack, ...]
    user: User

    @property
    def cheapest(self) -> Attack | None:
        """The attack that shows the width with the fewest queries; None where none does."""
        found = [attack for attack in self.attacks if attack.width_queries is not None]
        return min(found, key=lambda attack: attack.width_queries or 0, default=None)

    @property
    def sharpest(self) -> Attack | None:
        """The attack that reads a logit with the most bits; None where none reads any."""
        found = [attack for attack in self.attacks if attack.bits is not None]
        return max(found, key=lambda attack: attack.bits or 0.0, default=None)


@dataclass(frozen=True, kw_only=True)
class DefenceStudy:
    """All defences on the logits of one model. `width` is what the logits themselves show (None: nothing)."""

    model: str
    vocabulary: int
    contexts: int
    width: int | None
    seed: int
    rows: tuple[DefenceRow, ...] = field(repr=False)


def study_defences(
    logits_NV: FloatArray,
    defences: Sequence[Defence] | None = None,
    *,
    model: str = "",
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DefenceStudy:
    """Measures each defence on real logits of N contexts and the whole vocabulary V, which are taken as exact.

    The width shows only where N is over 1.25 of it; 4 times allows all that is tried here. `on_progress` is told
    (done, of). Raises ShapeError for anything but a matrix with 4 rows, InputError where logits are not finite.
    """
    if logits_NV.ndim != 2 or logits_NV.shape[0] < _BLOCK_ROWS or logits_NV.shape[1] < _FEWEST_TOKENS:
        least = f"({_BLOCK_ROWS} contexts or more, a vocabulary of {_FEWEST_TOKENS} or more)"
        raise ShapeError("too few logits", expected=least, actual=logits_NV.shape)
    if not np.isfinite(logits_NV).all():
        raise InputError("logits must be finite", hint="leave out tokens that do not exist")
    chosen = common_defences() if defences is None else tuple(defences)
    lab = DefenceLab(logits_NV, seed)
    rows = []
    for number, defence in enumerate(chosen, 1):
        rows.append(DefenceRow(defence=defence, attacks=lab.attacks(defence.exposure), user=lab.user(defence.exposure)))
        if on_progress is not None:
            on_progress(number, len(chosen))
    contexts, vocabulary = logits_NV.shape
    return DefenceStudy(
        model=model, vocabulary=vocabulary, contexts=contexts, width=lab.width, seed=seed, rows=tuple(rows)
    )


class DefenceLab:
    """The logits, in a random order of rows and tokens, and what is measured on them."""

    def __init__(self, logits_NV: FloatArray, seed: int) -> None:
        self.logits_NV = logits_NV
        self.seed = seed
        rng = np.random.default_rng(seed)
        self.token_order_V = rng.permutation(logits_NV.shape[1])
        self.row_order_N = rng.permutation(len(logits_NV))
        self._shows: dict[tuple[object, ...], bool] = {}
        self._blocks: dict[tuple[object, ...], Attack] = {}
        self.width = self._true_width()

    # --- the attacker ---------------------------------------------------------------------------------------------

    def attacks(self, exposure: Exposure) -> tuple[Attack, ...]:
        """Each read-out that is left, cheapest first."""
        left = exposed_read_outs(exposure)
        return tuple(self._attack(read_out, exposure) for read_out in left if read_out not in (ReadOut.P0, ReadOut.P9))

    def _attack(self, read_out: ReadOut, exposure: Exposure) -> Attack:
        if read_out is ReadOut.P8:
            return Attack(read_out=read_out)
        reader = reader_for(read_out, as_probed(exposure))
        # A greedy token is the same whatever is told beside it: read once for each limit on the bias.
        key = (reader, None if read_out is ReadOut.P7 else exposure)
        if key not in self._blocks:
            self._blocks[key] = self._read_block(reader, exposure)
        attack = self._blocks[key]
        return attack if self.width is None or attack.bits is None else self._with_width(attack, exposure)

    def _read_block(self, reader: LogitReader, exposure: Exposure) -> Attack:
        """A few logits, read as an audit reads them, against the truth."""
        nothing = Attack(read_out=reader.read_out)
        endpoint = LogitsEndpoint(self.logits_NV, exposure, seed=self.seed)
        rows = self.row_order_N[:_BLOCK_ROWS]
        columns = np.sort(self.token_order_V[:_BLOCK_COLUMNS])
        try:
            reading = reader.read(endpoint, endpoint.contexts(rows.tolist()), columns)
        except (NotExposedError, RefusedError):
            return nothing
        true_RM = self.logits_NV[np.ix_(rows, columns)].astype(np.float64)
        error_RM = reading.logits_NM - true_RM
        read_fraction = float(np.isfinite(error_RM).mean())
        if read_fraction < _LEAST_READ:
            return replace(nothing, read_fraction=read_fraction)
        error_RM -= np.nanmean(error_RM, axis=1, keepdims=True)
        rms = float(np.sqrt(np.nanmean(error_RM**2)))
        if YIELDS[reader.read_out].telling is Telling.ITSELF:
            rms = max(rms, self._float32_nats(rows, columns))
        return replace(
            nothing,
            read_fraction=read_fraction,
            rms_nats=rms,
            bits=math.log2(float(np.ptp(true_RM, axis=1).mean()) / max(rms, _EXACT_NATS)),
            queries_per_logit=reading.spent.queries / int(np.isfinite(error_RM).sum()),
        )

    def _float32_nats(self, rows: IdArray, columns: IdArray) -> float:
        """What float32 takes of these logprobs. Logits that were float32 logprobs already would come back unharmed."""
        logprobs_RM = log_softmax(self.logits_NV[rows].astype(np.float64))[:, columns]
        return float(np.sqrt((np.spacing(logprobs_RM.astype(np.float32)).astype(np.float64) ** 2 / 12).mean()))

    def _with_width(self, attack: Attack, exposure: Exposure) -> Attack:
        """The cheapest matrix, of those that these contexts allow, in which the width shows."""
        tried = 0
        for queries, contexts, tokens, repeats in self._plans(attack, exposure):
            tried = max(tried, queries)
            if self._width_shows(attack, exposure, contexts, tokens, repeats):
                return replace(attack, width_queries=queries, tried=queries, contexts=contexts, repeats=repeats)
        return replace(attack, tried=tried)

    def _plans(self, attack: Attack, exposure: Exposure) -> list[tuple[int, int, int, int]]:
        """(queries, contexts, tokens, repeats), fewest queries first. Repeats help against fresh noise alone."""
        assert self.width is not None
        averaged = exposure.noise_nats > 0 and exposure.noise is Noise.FRESH and attack.read_out is not ReadOut.P7
        is_searched = YIELDS[attack.read_out].telling is Telling.SEARCH
        plans = []
        for contexts_factor, tokens_factor in _SIZES:
            contexts = math.ceil(contexts_factor * self.width) + 24
            tokens = min(tokens_factor * self.width + 48, self.logits_NV.shape[1])
            if contexts > len(self.logits_NV):
                continue
            for repeats in _REPEATS if averaged else _REPEATS[:1]:
                queries = matrix_queries(
                    attack.read_out,
                    exposure,
                    contexts=contexts,
                    tokens=tokens,
                    queries_per_logit=attack.queries_per_logit if is_searched else None,
                )
                plans.append((queries * repeats, contexts, tokens, repeats))
        return sorted(plans)

    def _width_shows(self, attack: Attack, exposure: Exposure, contexts: int, tokens: int, repeats: int) -> bool:
        direct = YIELDS[attack.read_out].telling is Telling.ITSELF
        returned = replace(
            Exposure.everything(),
            decimals=exposure.decimals,
            noise_nats=exposure.noise_nats,
            noise=exposure.noise,
            noise_seed=exposure.noise_seed,
        )
        key = (contexts, tokens, repeats, returned if direct else attack.rms_nats)
        if key not in self._shows:
            matrix_NM = (
                self.returned_matrix(returned, contexts, tokens, repeats)
                if direct
                else self._blurred(attack.rms_nats or 0.0, contexts, tokens, repeats)
            )
            estimate = estimate_width(matrix_NM, seed=self.seed)
            self._shows[key] = estimate.status is not Status.UNRESOLVED and estimate.width == self.width
        return self._shows[key]

    def returned_matrix(self, exposure: Exposure, contexts: int, tokens: int, repeats: int) -> Float64Array:
        """The matrix (N, M) as returned. The mean of repeats has Gaussian noise of its own size, unrounded."""
        if repeats > 1:
            exposure = replace(exposure, noise_nats=exposure.noise_nats / math.sqrt(repeats), decimals=None)
        request = Request(prompt="x", temperature=0.0, reveal=Reveal.VOCABULARY)
        rng = np.random.default_rng([self.seed, contexts])
        logprobs = apply(self._with_rest(contexts, tokens), request, exposure, noise_rng=rng).logprobs
        assert logprobs is not None and logprobs.vocabulary_TV is not None
        returned_NM: Float64Array = logprobs.vocabulary_TV[:, :-1].astype(np.float32).astype(np.float64)
        return returned_NM

    def _blurred(self, rms_nats: float, contexts: int, tokens: int, repeats: int) -> Float64Array:
        """The matrix (N, M) with Gaussian errors of the size that was measured on the block."""
        rng = np.random.default_rng([self.seed, contexts])
        error_NM = rms_nats / math.sqrt(repeats) * rng.standard_normal((contexts, tokens))
        blurred_NM: Float64Array = log_softmax(self._with_rest(contexts, tokens))[:, :-1] + error_NM
        return blurred_NM

    def _with_rest(self, contexts: int, tokens: int) -> Float64Array:
        """Logits (N, M+1) of M tokens and of one that stands for all others, so that the M have their own logprobs."""
        rows, kept = self.row_order_N[:contexts], self.token_order_V[:tokens]
        others = self.token_order_V[tokens:]
        result = np.full((contexts, tokens + 1), -np.inf)
        for place, row in enumerate(rows.tolist()):
            row_V = self.logits_NV[row].astype(np.float64)
            result[place, :-1] = row_V[kept]
            if len(others):
                highest = row_V.max()
                result[place, -1] = highest + math.log(np.exp(row_V[others] - highest).sum() + 1e-300)
        return result

    def _true_width(self) -> int | None:
        """What the logits show without any interface in between."""
        contexts = len(self.logits_NV)
        tokens = min(self.logits_NV.shape[1], max(2 * contexts, 64))
        estimate = estimate_width(self.logits_NV[:, self.token_order_V[:tokens]].astype(np.float64), seed=self.seed)
        return None if estimate.status is Status.UNRESOLVED else estimate.width

    # --- the honest user ------------------------------------------------------------------------------------------

    def user(self, exposure: Exposure) -> User:
        """What is told to, changed for and refused to an honest user."""
        logits_RV = self.logits_NV[np.sort(self.row_order_N[:_USER_ROWS])].astype(np.float64)
        best_R = logits_RV.argmax(axis=1)
        plain = Request(prompt="x", temperature=0.0)
        rng = np.random.default_rng(self.seed)
        text_R = apply(logits_RV, plain, exposure, rng=rng).token_ids_T
        kl = changed = None
        if exposure.top_logprobs != 0:
            lifted = replace(exposure, top_logprobs=None)
            returned = apply(logits_RV, replace(plain, reveal=Reveal.VOCABULARY), lifted, noise_rng=rng).logprobs
            assert returned is not None and returned.vocabulary_TV is not None
            true_RV = log_softmax(logits_RV)
            returned_RV = log_softmax(returned.vocabulary_TV.astype(np.float64))
            kl = max(0.0, float((np.exp(true_RV) * (true_RV - returned_RV)).sum(axis=1).mean()))
            changed = float((returned.vocabulary_TV.argmax(axis=1) != best_R).mean())
        return User(
            kl_nats=kl,
            top_changed=changed,
            text_changed=float((text_R != best_R).mean()),
            refused=refused_requests(exposure),
        )


def matrix_queries(
    read_out: ReadOut, exposure: Exposure, *, contexts: int, tokens: int, queries_per_logit: float | None = None
) -> int:
    """Requests that a matrix of so many contexts and tokens takes: one for each group of logits that an answer tells
    (Carlini et al., arXiv 2403.06634, sections 4 and 5), or what was measured, where logits are searched for."""
    if queries_per_logit is not None:
        return contexts * max(1, math.ceil(tokens * queries_per_logit))
    found = as_probed(exposure)
    # One of the top places is the reference token's.
    told = {ReadOut.P1: tokens, ReadOut.P2: found.wanted_ids, ReadOut.P3: found.top_logprobs - 1}.get(read_out, 1)
    return contexts * math.ceil(tokens / max(1, told))


def as_probed(exposure: Exposure) -> Probed:
    """What a probe would find of this interface, as far as readers are chosen by it."""
    return Probed(
        context=Request(prompt="x"),
        returns_ids=True,
        whole_vocabulary=True,
        top_logprobs=_limit(exposure.top_logprobs, _MOST_TOP),
        wanted_ids=_limit(exposure.wanted_ids, _MOST_IDS),
        largest_bias=min(exposure.logit_bias, _LARGEST_BIAS),
        biased_ids=_limit(exposure.biased_ids, _MOST_BIASED),
        spread_nats=exposure.noise_nats,
        decimals=exposure.decimals,
    )


def _limit(value: int | None, most: int) -> int:
    return most if value is None else min(value, most)
