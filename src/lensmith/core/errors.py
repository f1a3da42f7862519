"""The errors a person can meet: what was expected, what came, and what to do next.

One small tree. `exit_code` is what the command line returns when the error reaches it:
2 for bad usage or input, 3 when the answer could not be told.
"""

import functools
from typing import ClassVar, TypedDict


class LensmithError(Exception):
    """Base of all errors that lensmith raises on purpose."""

    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        problem: str,
        *,
        expected: object = None,
        actual: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.actual = actual
        self.hint = hint
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [self.problem]
        if self.expected is not None:
            parts.append(f"  expected: {self.expected}")
        if self.actual is not None:
            parts.append(f"  actual:   {self.actual}")
        if self.hint is not None:
            parts.append(f"  try:      {self.hint}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the class with the message alone and lose the parts between processes.
        parts = {name: part for name, part in vars(self).items() if name != "__notes__"}
        return functools.partial(type(self), **parts), ()


class ErrorParts(TypedDict, total=False):
    """What an error says beside its problem."""

    expected: object
    actual: object
    hint: str | None


class InputError(LensmithError):
    """A file, an option or a value that a person gave cannot be used."""


class ConfigError(InputError):
    """A configuration has an unknown key, a wrong type or an impossible value."""


class AccessError(InputError):
    """An endpoint does not take the key that it was given, or asks for one."""


class ImageError(InputError):
    """A picture cannot be read, or is larger than the limits allow."""


class MissingExtraError(InputError):
    """A command needs an optional dependency that is not installed."""


class ShapeError(LensmithError):
    """A tensor or array has the wrong shape, or two counts that must agree do not."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or belongs to another configuration."""


class NotExposedError(LensmithError):
    """An endpoint does not reveal what was asked for."""

    exit_code = 3


class RenderError(LensmithError):
    """A page could not be rendered within its limits."""


class BrowserNotFoundError(RenderError):
    """No usable Chromium was found."""

    exit_code = 3


class PageTimeoutError(RenderError):
    """A page took longer than its time limit."""


class PageTooLargeError(RenderError):
    """A page exceeds the limit on bytes, nodes or height."""


class PageCrashError(RenderError):
    """The page took its renderer process down."""
