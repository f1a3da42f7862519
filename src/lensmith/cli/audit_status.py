"""Where an audit is, in one line on stderr: how much is left nobody knows, so there is no bar and no time left."""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[object], None]]:
    """What it gives shows its argument's text in place of the one before. The last one stays, and stands alone where
    stderr is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    line = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)
    )
    task = line.add_task("", total=None)

    def show(progress: object) -> None:
        if not line.live.is_started:
            line.start()
        line.update(task, description=escape(str(progress)))

    try:
        yield show
    finally:
        if line.live.is_started:
            line.stop()
