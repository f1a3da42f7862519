"""Whose numbers to reproduce, where a published implementation and transformers' version of it disagree."""

import enum


class Exactness(enum.Enum):
    """`ORIGINAL`: what the authors' own code computes. `TRANSFORMERS`: what transformers' port of it computes."""

    ORIGINAL = "original"
    TRANSFORMERS = "transformers"
