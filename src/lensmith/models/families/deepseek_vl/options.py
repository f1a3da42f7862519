"""What can be chosen of a DeepSeek-VL model, and of no other: whose numbers it computes, and how it reads a picture."""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lensmith.models.families.base import Option


class Exactness(enum.Enum):
    """Whose numbers to reproduce, where the published implementation and transformers' version of it disagree.

    `ORIGINAL`: what the authors' own code computes. `TRANSFORMERS`: what transformers' port of it computes.
    """

    ORIGINAL = "original"
    TRANSFORMERS = "transformers"


class Decoding(enum.Enum):
    """How a picture looks before it is scaled."""

    STORED = "stored"
    """As the original reads it: pixels as they are stored, transparency dropped."""
    UPRIGHT = "upright"
    """As transformers reads a file: turned as EXIF says, transparency dropped."""
    AS_SEEN = "as-seen"
    """As a person sees it: turned as EXIF says, transparent parts over white, the upper 8 of 16 bits."""


EXACT = Option(kind=Exactness, unknown="no such variant", absent="this model was published in one variant")
PICTURE_DECODING = Option(
    kind=Decoding,
    unknown="no such way to read a picture",
    absent="this model reads pictures in one way",
    elsewhere=Decoding.AS_SEEN.value,
)
OPTIONS: Mapping[str, Option[Any]] = MappingProxyType({"exact": EXACT, "picture_decoding": PICTURE_DECODING})
