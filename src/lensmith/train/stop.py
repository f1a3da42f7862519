"""Ctrl-C and SIGTERM become a wish to stop that the loop reads between steps; a second Ctrl-C stops at once."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """While entered, the first SIGINT or SIGTERM sets `wanted`. Outside the main thread signals are left alone."""

    def __init__(self) -> None:
        self.wanted = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None: a handler that was not installed from Python, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        name = signal.Signals(number).name
        # Past sys.stderr's buffer, which the signal may have interrupted in the middle of a write.
        with contextlib.suppress(OSError):
            os.write(2, f"\n{name}: finishing the step and saving; once more to stop without saving\n".encode())
