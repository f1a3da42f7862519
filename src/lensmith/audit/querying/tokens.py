"""What a model's own tokenizer calls its tokens, beside what a server calls them."""

from collections.abc import Mapping
from dataclasses import dataclass

from lensmith.audit.querying.meter import TokenTexts
from lensmith.core.arrays import IdArray
from lensmith.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TokenBytes:
    """The bytes of token ids, as the model's own tokenizer has them; none for those that are not the only ones."""

    bytes_of: Mapping[int, bytes]

    def texts(self, ids: IdArray) -> dict[int, str]:
        """The texts of those that are text by themselves."""
        found = {each: self.bytes_of[each] for each in ids.tolist() if each in self.bytes_of}
        return {each: data.decode() for each, data in found.items() if _is_text(data)}

    def names(self, texts: TokenTexts, ids: IdArray) -> dict[int, int]:
        """The id of each name (a client's number) that one of these ids has."""
        return {texts.number(self.bytes_of[each]): each for each in ids.tolist() if each in self.bytes_of}

    def check(self, id_of: Mapping[int, int], texts: TokenTexts) -> None:
        """Raises InputError where the endpoint calls most tokens otherwise than the tokenizer."""
        told = {each: texts.data(name) for name, each in id_of.items() if each in self.bytes_of}
        wrong = [each for each, data in told.items() if data != self.bytes_of[each]]
        if 2 * len(wrong) > len(told):
            raise InputError(
                "the tokenizer is not that of the endpoint's model",
                expected=f"token {wrong[0]} as {self.bytes_of[wrong[0]]!r}",
                actual=told[wrong[0]],
                hint="leave --tokenizer out: the names are then asked of the endpoint",
            )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
