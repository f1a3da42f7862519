"""Whether outputs come from the model whose image is known: a few of them tell, whatever was asked.

Finlayson et al., arXiv 2403.09539: all outputs of a model lie in its image, and those of another model nearly nowhere
near it. A hidden prompt or a fine-tune below the head changes outputs and not the image; a change of the head, even of
low rank, does. What is left beside the image is compared with what the image's own error and the noise of the reading
leave; both are measured.

Legend: K outputs, M tokens of the image, T of them that are read.
"""

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lensmith.audit.estimators.image import Image, choose_tokens, off_image_at, part_of
from lensmith.audit.estimators.spectrum import drop_missing
from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.event_log import asked_anew, mark_finished
from lensmith.audit.querying.meter import BudgetError, TokenTexts
from lensmith.audit.readouts.base import LogitReader
from lensmith.audit.readouts.choose import columns_for, lasting_ids, named, reader_for
from lensmith.audit.session import open_session
from lensmith.audit.stages.proof import SECOND_SEED, first_proven
from lensmith.audit.stages.stage import AuditStage
from lensmith.core.arrays import Float64Array, IdArray
from lensmith.core.endpoint import Endpoint, Request
from lensmith.core.errors import InputError, LensmithError, NotExposedError

_START = 2_000_000
"""Contexts of a check are others than those that an audit learns the image from."""
_REPEATED = 4
_LEAST_OUTPUTS = 4
_TOKENS_PER_RANK = 2
_SPARE = 8
"""Tokens beyond the rank that must be there: with as many as the rank, every output fits."""
_SAME, _OTHER = 2.0, 4.0
"""Residuals under / over so many times what is expected come from this image / another."""
_UNRELATED = 0.25
"""Where the noise of the reading is not known, another image is one that leaves this part of what a random one does."""


class Origin(enum.Enum):
    """Where outputs come from."""

    SAME = "the same image"
    ANOTHER = "another image"
    COULD_NOT_TELL = "could not tell"


@dataclass(frozen=True, kw_only=True)
class SignatureConfig:
    """What to ask: `outputs` answers, fewer where the budget does not reach. A check of the same target that was
    interrupted goes on."""

    session: SessionConfig
    outputs: int = 16


@dataclass(frozen=True, kw_only=True)
class SignatureCheck:
    """The verdict with its figures, root mean squares in nats: what the image leaves of the outputs, what it would
    leave of the model's own, and of an unrelated model's."""

    origin: Origin
    reason: str
    residual_nats: float | None = None
    expected_nats: float | None = None
    unrelated_nats: float | None = None
    outputs: int = 0
    tokens: int = 0
    read_out: str = ""
    queries: int = 0

    @property
    def exit_code(self) -> int:
        """0 the same image, 1 another, 3 could not tell."""
        return {Origin.SAME: 0, Origin.ANOTHER: 1}.get(self.origin, 3)

    def __str__(self) -> str:
        asked = f"{self.outputs} outputs of {self.tokens} tokens through {self.read_out}, {self.queries} queries"
        return f"{self.origin.value}: {self.reason}" + (f" ({asked})" if self.read_out else "")


def check_signature(
    endpoint: Endpoint,
    image: Image,
    config: SignatureConfig,
    *,
    texts: TokenTexts | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> SignatureCheck:
    """Reads a few outputs through the cheapest read-out, all anew where an earlier check was finished. What stands in
    the way of a verdict is its reason, no error, except for an endpoint that does not answer at all, and a folder
    with an unfinished check of another target (ConfigError)."""
    asked = config.session
    header = asked.header(signature=image.content_hash, model=asked.model)
    with asked_anew(asked.folder):
        with open_session(endpoint, asked, header, texts=texts) as session:
            stage = session.stage
            try:
                read_out = first_proven(session.whole_stage())
                if read_out is None:
                    raise NotExposedError("the endpoint tells no logits")
                check = _checked(stage, read_out, image, config.outputs, on_progress)
                check = replace(check, read_out=read_out.value)
            except BudgetError as error:  # not finished: with a larger budget it goes on
                return _undecided(error, stage)
            except (NotExposedError, InputError) as error:
                check = _undecided(error, stage)
        mark_finished(asked.folder)
    return replace(check, queries=stage.meter.spent.queries)


def _undecided(error: LensmithError, stage: AuditStage) -> SignatureCheck:
    return SignatureCheck(origin=Origin.COULD_NOT_TELL, reason=error.problem, queries=stage.meter.spent.queries)


def _checked(
    stage: AuditStage, read_out: ReadOut, image: Image, outputs: int, on_progress: Callable[[int, int], None]
) -> SignatureCheck:
    contexts = stage.contexts(read_out)
    first = contexts.take(_START, _START + _REPEATED)
    reader = reader_for(read_out, stage.probed)
    wanted = _wanted(image, reader, first, stage)
    chosen = named(reader, stage.probed, stage.meter, first[0], wanted, tokens=stage.config.tokens)
    reader, wanted = chosen.reader, chosen.columns
    outputs = _affordable(stage, reader, len(wanted), outputs)
    readings = []
    for start in range(_START, _START + outputs, _REPEATED):
        asked = contexts.take(start, min(start + _REPEATED, _START + outputs))
        readings.append(reader.read(stage.meter, asked, wanted))
        on_progress(min(outputs, start + _REPEATED - _START), outputs)
    logits_KT = np.concatenate([reading.logits_NM for reading in readings])
    again = [replace(context, seed=SECOND_SEED) for context in first]
    again_KT = reader.read(stage.meter, again, wanted).logits_NM
    repeat_KT = _centred(logits_KT[:_REPEATED]) - _centred(again_KT)
    kept = drop_missing(logits_KT)
    if kept.matrix_NM.shape[0] < _LEAST_OUTPUTS or kept.matrix_NM.shape[1] < image.rank + 1 + _SPARE:
        shape = kept.matrix_NM.shape
        raise NotExposedError(f"{shape[0]} outputs of {shape[1]} of the image's tokens were told, which are too few")
    # Rounding and the last step of a search err the same way twice, so repeats alone do not tell the noise.
    noise_nats = max(
        float(np.sqrt(np.nanmean(repeat_KT**2) / 2)),
        image.noise_nats,
        *(reading.resolution_nats for reading in readings),
    )
    ids_T = lasting_ids(wanted[kept.tokens_M], stage.meter.texts)
    return judge(
        image,
        ids_T,
        np.asarray(kept.matrix_NM, dtype=np.float64),
        noise_nats=noise_nats,
        step_nats=stage.probed.step_nats,
    )


def judge(
    image: Image, ids_T: IdArray, logits_KT: Float64Array, *, noise_nats: float, step_nats: float = 0.0
) -> SignatureCheck:
    """The verdict on outputs over some of the image's tokens. `noise_nats`: the reading's standard deviation of one
    value. `step_nats`: the lattice on which the logits lie, 0 for none; on a coarser one than the image was learned
    from, the noise is larger than either tells, and only what is far from the image is called another."""
    off = off_image_at(image, ids_T, logits_KT, noise_nats=noise_nats)
    residual = float(np.sqrt((off.rms_K**2).mean()))
    expected = float(np.sqrt((off.expected_K**2).mean()))
    spread = float((logits_KT - logits_KT.mean(axis=1, keepdims=True)).std())
    unrelated = spread * math.sqrt(1 - (image.rank + 1) / len(ids_T))
    is_coarse = step_nats > math.sqrt(12) * noise_nats
    measured = f"the image leaves {residual:.2g} nats of them, where {expected:.2g} are expected of its model"
    if expected > _UNRELATED * unrelated:
        origin, reason = Origin.COULD_NOT_TELL, f"noise hides it: {measured}, and {unrelated:.2g} of any other"
    elif residual <= _SAME * expected:
        origin, reason = Origin.SAME, measured
    elif residual > (_UNRELATED * unrelated if is_coarse else _OTHER * expected):
        origin, reason = Origin.ANOTHER, f"{measured} and {unrelated:.2g} of an unrelated one"
    else:
        origin = Origin.COULD_NOT_TELL
        reason = f"{measured}, and {unrelated:.2g} of an unrelated one" + (
            "; the endpoint's logits are coarser than those that the image was learned from" if is_coarse else ""
        )
    return SignatureCheck(
        origin=origin,
        reason=reason,
        residual_nats=residual,
        expected_nats=expected,
        unrelated_nats=unrelated,
        outputs=len(logits_KT),
        tokens=len(ids_T),
    )


def _wanted(image: Image, reader: LogitReader, contexts: Sequence[Request], stage: AuditStage) -> IdArray:
    """The tokens to read, by the endpoint's ids: all that both know where they cost nothing, else a chosen few."""
    readable = columns_for(reader, stage.probed, stage.meter, contexts, stage.config.seed)
    lasting = lasting_ids(readable, stage.meter.texts)
    shared = readable[np.isin(lasting, image.token_ids_M)]
    if len(shared) < image.rank + 1 + _SPARE:
        raise NotExposedError(f"the endpoint tells {len(shared)} of the image's {len(image.token_ids_M)} tokens")
    if reader.queries_for(1, len(shared)).queries <= reader.queries_for(1, 2).queries:
        return shared
    place_of = dict(zip(lasting.tolist(), readable.tolist(), strict=True))
    part = part_of(image, lasting_ids(shared, stage.meter.texts))
    count = min(len(shared), max(_TOKENS_PER_RANK * (image.rank + 1), image.rank + 1 + _SPARE))
    return np.array(
        [place_of[each] for each in choose_tokens(part, count, seed=stage.config.seed).tolist()], dtype=np.int64
    )


def _affordable(stage: AuditStage, reader: LogitReader, columns: int, outputs: int) -> int:
    """As many outputs as the budget reaches for, beside those that are read again."""
    left = stage.meter.queries_left
    fewer = range(outputs, _LEAST_OUTPUTS, -1)
    reached = (count for count in fewer if reader.queries_for(count + _REPEATED, columns).queries <= left)
    return next(reached, min(outputs, _LEAST_OUTPUTS))


def _centred(logits_KT: Float64Array) -> Float64Array:
    centred: Float64Array = logits_KT - np.nanmean(logits_KT, axis=1, keepdims=True)
    return centred
