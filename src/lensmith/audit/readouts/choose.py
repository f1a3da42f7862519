"""From what the probe found: which reader, with which settings, and which columns.

Where a server names tokens by text, only those are columns whose text is no other token's, and reports number them by a
hash of it, which means the same to every client.

Legend: M columns.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.probe.capabilities import Probed
from lensmith.audit.querying.meter import Meter, TokenTexts
from lensmith.audit.querying.tokens import TokenBytes
from lensmith.audit.readouts.base import LogitReader, greedy
from lensmith.audit.readouts.direct import ChosenIdsReader, WholeVocabularyReader
from lensmith.audit.readouts.forced import Force, ForcedTokenReader, PromptReader
from lensmith.audit.readouts.greedy import GreedyReader
from lensmith.audit.readouts.names import BiasNames, NamedReader
from lensmith.audit.readouts.top_bias import SingleTopReader, TopBiasReader
from lensmith.core.arrays import IdArray
from lensmith.core.endpoint import TEXT_IDS_FROM, Request
from lensmith.core.errors import InputError, NotExposedError

_DISTINCT_TEXT = re.compile(r"\s?[A-Za-z]{3,}")


def distinct_texts(texts: Mapping[int, str]) -> IdArray:
    """The ids whose text names them alone: at least 3 ASCII letters (after at most one space), and no other id's.

    Pieces of letters beyond ASCII, bytes and numbers collide: a server that keys answers by text shows one of them.
    """
    shared = Counter(texts.values())
    named = [each for each, text in texts.items() if shared[text] == 1 and _DISTINCT_TEXT.fullmatch(text)]
    return np.array(sorted(named), dtype=np.int64)


def lasting_ids(ids_M: IdArray, texts: TokenTexts | None) -> IdArray:
    """Ids that mean the same in another client: tokens that are known by text get a number made of the text."""
    if texts is None:
        return ids_M
    lasting = [_hash_id(texts.data(each)) if each >= TEXT_IDS_FROM else each for each in ids_M.tolist()]
    return np.array(lasting, dtype=np.int64)


def _hash_id(name: bytes) -> int:
    return TEXT_IDS_FROM + int.from_bytes(hashlib.sha256(name).digest()[:6], "big")


_ALL = 1 << 20
"""More top logprobs than any vocabulary has tokens: servers tell what they have."""
_MOST_AT_ONCE = 300
"""More biased ids in one request bring nothing to the greedy read-out, and long requests."""
_LEAST_ID = 3
"""The first ids are special tokens as a rule."""
_ASSUMED_VOCABULARY = 4096
"""How many ids are used where the number is not known; ids that do not exist come back unread."""


def reader_for(read_out: ReadOut, probed: Probed) -> LogitReader:
    """The reader for a read-out of this interface. Raises InputError for one that reads no logits (P0, P8, P9)."""
    logprob_error_nats = probed.logprob_error_nats
    if read_out is ReadOut.P1:
        top = None if probed.returns_ids and probed.whole_vocabulary else _ALL
        return WholeVocabularyReader(top=top, logprob_error_nats=logprob_error_nats)
    if read_out is ReadOut.P2:
        return ChosenIdsReader(cap=probed.wanted_ids, logprob_error_nats=logprob_error_nats)
    if read_out is ReadOut.P3:
        return TopBiasReader(
            top=min(probed.top_logprobs, 20),
            bias_limit=probed.largest_bias,
            biased_ids=probed.biased_ids,
            logprob_error_nats=logprob_error_nats,
        )
    if read_out in (ReadOut.P4A, ReadOut.P4B):
        force = Force.BIAS if read_out is ReadOut.P4A else Force.ALLOW_LIST
        return ForcedTokenReader(force=force, bias=probed.largest_bias or 1.0, logprob_error_nats=logprob_error_nats)
    if read_out is ReadOut.P5:
        return PromptReader(logprob_error_nats=logprob_error_nats)
    if read_out is ReadOut.P6:
        return SingleTopReader(bias_limit=probed.largest_bias, logprob_error_nats=logprob_error_nats)
    if read_out is ReadOut.P7:
        return GreedyReader(bias_limit=probed.largest_bias, biased_ids=min(probed.biased_ids, _MOST_AT_ONCE))
    raise InputError("this read-out tells no logits", actual=f"{read_out.value}: {read_out.title}")


@dataclass(frozen=True, kw_only=True)
class ReadingPlan:
    """A reader, the tokens to read in order, of which the first is the reference of a growing matrix, and `all_columns`
    that it can read: the same, and after them those that nobody asked for yet."""

    reader: LogitReader
    columns: IdArray
    all_columns: IdArray


def plan_reading(
    read_out: ReadOut,
    probed: Probed,
    endpoint: Meter,
    contexts: Sequence[Request],
    *,
    columns: int,
    seed: int,
    positions: int = 1,
    tokens: TokenBytes | None = None,
) -> ReadingPlan:
    """A reader that is ready for `columns` tokens. Asks the endpoint where those cannot be known beforehand.

    `positions`: rows from one context, where the read-out can (P3). `tokens`: what the model's tokenizer calls them.
    """
    reader = reader_for(read_out, probed)
    if isinstance(reader, TopBiasReader) and positions > 1:
        reader = replace(reader, positions=positions, own_reference=True)
    ids = columns_for(reader, probed, endpoint, contexts, seed)
    return named(reader, probed, endpoint, contexts[0], ids, columns=columns, tokens=tokens)


def named(
    reader: LogitReader,
    probed: Probed,
    endpoint: Meter,
    context: Request,
    ids: IdArray,
    *,
    columns: int | None = None,
    tokens: TokenBytes | None = None,
) -> ReadingPlan:
    """The reader, ready for these tokens, without those that it cannot tell apart, where answers name tokens by text:
    names that no tokenizer tells (`tokens`) are asked for."""
    columns = len(ids) if columns is None else columns
    texts: dict[int, str] | None = None
    if probed.returns_ids:
        pass
    elif isinstance(reader, TopBiasReader):
        reader, ids = _with_names(reader, endpoint, context, ids, tokens)
    elif isinstance(reader, GreedyReader):
        asked = partial(_forced_texts, endpoint, context, ids[:columns], probed.largest_bias)
        texts = asked() if tokens is None else tokens.texts(ids)
    elif isinstance(reader, PromptReader) and not probed.takes_token_ids and tokens is not None:
        texts = tokens.texts(ids)
    if texts is not None and isinstance(reader, GreedyReader | PromptReader):
        reader, ids = replace(reader, texts=texts), ids[np.isin(ids, list(texts))]
    return ReadingPlan(reader=reader, columns=ids[:columns], all_columns=ids)


def _with_names(
    reader: TopBiasReader, endpoint: Meter, context: Request, ids: IdArray, tokens: TokenBytes | None
) -> tuple[NamedReader, IdArray]:
    """The reader, which learns names as it goes, and the ids with the reference first, whose name must be known.

    Raises InputError where a tokenizer gives other names than the endpoint.
    """
    by_bias = BiasNames(
        top=reader.top,
        bias_limit=reader.bias_limit,
        biased_ids=reader.biased_ids or reader.top,
        error_nats=reader.logprob_error_nats,
    )
    named_reader = NamedReader(
        reader=replace(reader, own_reference=True), learn=by_bias, queries_to_learn=by_bias.queries_for
    )
    known = named_reader.known(endpoint, context, ids[: by_bias.at_once])
    while not len(known) and len(named_reader.tried) < len(ids):
        known = named_reader.known(endpoint, context, ids[: len(named_reader.tried) + by_bias.at_once])
    if not len(known):
        raise NotExposedError("no biased token's name shows which token it is")
    if tokens is not None and endpoint.texts is not None:
        tokens.check(named_reader.id_of, endpoint.texts)
        table = partial(tokens.names, endpoint.texts)
        named_reader = NamedReader(reader=named_reader.reader, learn=lambda _, __, wanted: table(wanted))
        known = named_reader.known(endpoint, context, known)
    return named_reader, np.concatenate([known[:1], ids[ids != known[0]]])


def _forced_texts(endpoint: Meter, context: Request, ids: IdArray, bias: float) -> dict[int, str]:
    """What each token is called, by forcing it once; tokens that share a text, or have none, are left out."""
    requests = [greedy(context, logit_bias={int(token_id): bias}) for token_id in ids]
    texts = [answer.choices[0].text for answer in endpoint.answer(requests)]
    shared = Counter(texts)
    return {int(each): text for each, text in zip(ids, texts, strict=True) if text and shared[text] == 1}


def columns_for(
    reader: LogitReader, probed: Probed, endpoint: Meter, contexts: Sequence[Request], seed: int
) -> IdArray:
    """The ids to read, in a random order that the seed decides. The first is the reference of a growing matrix.

    Where ids cannot be chosen, those that every one of `contexts` tells, and whose text no other token shares.
    """
    rng = np.random.default_rng(seed)
    if not (isinstance(reader, WholeVocabularyReader) and not probed.returns_ids):
        return rng.permutation(np.arange(_LEAST_ID, probed.vocabulary_size or _ASSUMED_VOCABULARY, dtype=np.int64))
    ids = reader.common_ids(endpoint, contexts)
    if endpoint.texts is None:
        return rng.permutation(ids)
    # The order by a hash of the text is the same for every client, however it numbers the texts.
    names = {int(token_id): endpoint.texts.data(int(token_id)) for token_id in ids}
    distinct = distinct_texts({token_id: name.decode("utf-8", "replace") for token_id, name in names.items()})
    order = sorted(distinct.tolist(), key=lambda token_id: hashlib.sha256(b"%d " % seed + names[token_id]).digest())
    return np.array(order, dtype=np.int64)
