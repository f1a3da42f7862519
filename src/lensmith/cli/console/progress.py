"""A progress bar with rate and time left, on stderr, so that stdout holds results only.

Where an audit is, in one line on stderr: how much is left nobody knows, so there is no bar and no time left.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """What it gives is called with (done, total) as work goes on.

    The bar appears with the first call and ends when all is done or the block is left, so that work which skips a
    phase, or draws its own progress in the next, is not disturbed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0.0:.1f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeLeft())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(what, total=None, start=False)

    def on_progress(done: int, total: int) -> None:
        if not bar.live.is_started:
            bar.start_task(task)
            bar.start()
        bar.update(task, completed=done, total=total)
        if done >= total:
            bar.stop()

    try:
        yield on_progress
    finally:
        if bar.live.is_started:
            bar.stop()


def counting(on_progress: Callable[[int, int], None], total: int) -> Callable[[object], None]:
    """For work that reports each result instead of a count."""
    counter = itertools.count(1)
    return lambda result: on_progress(next(counter), total)


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
