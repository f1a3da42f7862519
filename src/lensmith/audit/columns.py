"""Which tokens can be told apart by what a server calls them, and numbers for them that mean the same to every client.

Legend: M columns.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np

from lensmith.audit.meter import TokenTexts
from lensmith.core.endpoint import TEXT_IDS_FROM, IdArray

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
