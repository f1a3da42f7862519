"""Whose numbers to reproduce, where a published implementation and transformers' version of it disagree."""

import enum

from lensmith.core.errors import InputError


class Exactness(enum.Enum):
    """`ORIGINAL`: what the authors' own code computes. `TRANSFORMERS`: what transformers' port of it computes."""

    ORIGINAL = "original"
    TRANSFORMERS = "transformers"

    @classmethod
    def named(cls, name: str) -> "Exactness":
        """Raises InputError for a name that is none of these."""
        known = [each.value for each in cls]
        if name not in known:
            raise InputError("no such variant", expected=" or ".join(known), actual=name)
        return cls(name)
