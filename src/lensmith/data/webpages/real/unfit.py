"""Why a page of a package is left out."""

import enum

from lensmith.core.errors import InputError


class Cause(enum.Enum):
    """What makes a page unfit; the value is what a person reads."""

    FRAGMENT = "a fragment or a frameset, not a page"
    TEMPLATE = "a template, with marks that a program would fill"
    UNSTYLED = "without its stylesheet, which is not in the package"
    TOO_LARGE = "too large: its file, its stylesheets or its number of elements"
    NOT_RENDERED = "could not be rendered"
    ELEMENTS = "too few or too many visible elements"
    CHARACTERS = "too few or too many characters of visible text"
    HEIGHT = "too high"
    BLANK = "shows next to nothing"
    NEAR = "nearly the same markup as another page"
    MOST = "over the most pages of one package"


class UnfitPageError(InputError):
    """A page that cannot be prepared, and why."""

    def __init__(self, problem: str, *, cause: Cause, expected: object = None, actual: object = None) -> None:
        super().__init__(problem, expected=expected, actual=actual)
        self.cause = cause
