"""The workshop behind the page: one thread in which conversions, edits and changes wait for each other.

Engines and browsers are kept warm and shared by all tabs, so that one thing is made at a time. Who watches reads a
`Work`: the thread writes it, any other thread may look at it at any moment.
"""

import dataclasses
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from PIL import Image

from lensmith.core.endpoint import Choice, Finish, Request
from lensmith.core.errors import InputError, LensmithError
from lensmith.core.types import Message, Page, Picture
from lensmith.data.webpages.grammar.stylesheet import stand_alone
from lensmith.data.webpages.markup.repair import repair
from lensmith.render import Capture, Renderer
from lensmith.workflows.app.difference import compare
from lensmith.workflows.app.pictures import joined, parted
from lensmith.workflows.app.store import CHANGE, EDIT, NewVersion, Project, Version
from lensmith.workflows.html.convert import Candidate, Converter, at_width
from lensmith.workflows.html.engines import LayoutEngine, PageEngine
from lensmith.workflows.html.writers import EndpointWriter, completion_of

LOG = logging.getLogger(__name__)
CHANGE_INSTRUCTION = (
    "The picture is a screenshot, and this is the HTML of a page that was made of it. Files below pictures/ exist; "
    "keep their names. Change the page as asked, keep everything else as it is, load nothing from elsewhere, and "
    "answer with the complete HTML document alone."
)
MAX_CHANGE_TOKENS = 16_384
STOP_S = 5.0
"""How long an engine that is told to stop may take to come to its next step."""
_END = None


def said(error: LensmithError) -> str:
    """An error as sentences, for a page."""
    problem = f"{error.problem[:1].upper()}{error.problem[1:]}"
    parts = [problem if error.actual is None else f"{problem}: {error.actual}"]
    parts += [] if error.expected is None else [f"Expected: {error.expected}"]
    parts += [] if error.hint is None else [f"{error.hint[:1].upper()}{error.hint[1:]}"]
    return "".join(f"{part.rstrip('.')}.\n" for part in parts).rstrip()


class StoppedError(LensmithError):
    """A person stopped what was being made."""


@dataclass
class Work:
    """Something being made for a project. Written by the studio's thread, read by any.

    `step` says what happens now; `text` is what a model has written so far; `draft` is the page as far as it has come,
    which changes whenever `drafts` does. When `is_done`, `versions` are the numbers of what was kept, `best` the one to
    show, and `error` why nothing was.
    """

    project: Project
    title: str
    step: str = "waiting for its turn"
    text: str = ""
    draft: str = ""
    drafts: int = 0
    versions: tuple[int, ...] = ()
    best: int | None = None
    error: str = ""
    is_done: bool = False
    is_stopped: bool = False

    def begin(self, step: str) -> None:
        """Takes the next step. Raises StoppedError where nobody wants it any more."""
        self.check()
        self.step = step

    def show(self, html: str) -> None:
        """Takes a draft. Raises StoppedError where nobody wants it any more."""
        self.check()
        self.draft = html
        self.drafts += 1

    def hear(self, piece: str) -> None:
        """Takes a piece of text. Raises StoppedError where nobody wants it any more."""
        self.check()
        self.text += piece

    def check(self) -> None:
        """Raises StoppedError where a person has stopped it."""
        if self.is_stopped:
            raise StoppedError("stopped")


class Studio:
    """A context manager; works that are under way when it is left are abandoned, and nothing of them is kept."""

    def __init__(self, converter: Converter, *, writer: EndpointWriter | None = None, samples: int = 1) -> None:
        """`writer`: who may be asked for changes in words. Takes over `converter`, and closes it."""
        self._converter = converter
        self._writer = writer
        self._samples = samples
        self._queue: queue.SimpleQueue[tuple[Work, Callable[[Work], None]] | None] = queue.SimpleQueue()
        self._works: dict[str, Work] = {}
        self._now: Work | None = None
        converter.engines = [self._watched(engine) for engine in converter.engines]
        # A daemon, so that a program that fails does not wait for it.
        self._thread = threading.Thread(target=self._run, name="lensmith-app", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for work in self._works.values():
            work.is_stopped = True
        self._queue.put(_END)
        self._thread.join(timeout=STOP_S)
        self._converter.windows.close()

    @property
    def has_ended(self) -> bool:
        """Whether its thread is done, after it was left: an engine within a long step takes no notice."""
        return not self._thread.is_alive()

    @property
    def takes_wishes(self) -> bool:
        """Whether somebody can be asked for a change in words."""
        return self._writer is not None

    def work_of(self, project_id: str) -> Work | None:
        """The last thing that was or is made for a project since the start."""
        return self._works.get(project_id)

    def convert(self, project: Project) -> Work:
        """Makes pages of the screenshot; each candidate becomes a version."""
        return self._add(Work(project=project, title="Converting the screenshot"), self._convert)

    def keep(self, project: Project, html: str, *, parent: int | None) -> Work:
        """Keeps an edited page as a version, rendered and compared."""

        def judge(work: Work) -> None:
            self._keep(work, html, made_by=EDIT, parent=parent)

        return self._add(Work(project=project, title="Keeping your edit"), judge)

    def change(self, project: Project, number: int, wish: str) -> Work:
        """Asks for a change of a version in words. Raises InputError where nobody can be asked, or nothing is."""
        writer = self._writer
        if writer is None or not wish.strip():
            raise InputError("there is nobody to ask, or nothing", hint="start with --endpoint, and say what to change")

        def ask(work: Work) -> None:
            page = parted(project.html(number))
            work.begin("a model writes the page")

            def on_text(piece: str) -> None:
                work.hear(piece)
                work.show(joined(_unwrapped(work.text), page.addresses))

            for piece in writer.endpoint.stream(_change_request(project, page.html, wish)):
                on_text(piece)
            html = _whole(joined(_unwrapped(work.text), page.addresses))
            self._keep(work, html, made_by=CHANGE, parent=number, note=wish.strip())

        return self._add(Work(project=project, title="Changing the page"), ask)

    def _add(self, work: Work, make: Callable[[Work], None]) -> Work:
        self._works[work.project.id] = work
        self._queue.put((work, make))
        return work

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            work, make = task
            self._now = work
            try:
                work.check()
                make(work)
            except StoppedError:
                work.error = "Stopped. Nothing was kept."
            except LensmithError as error:
                work.error = said(error)
            except OSError as error:
                work.error = f"The page could not be kept: {error.strerror or error}"
            except Exception as error:  # whatever happens to one page, the next is made
                LOG.exception("a page could not be made")
                work.error = f"Something went wrong in lensmith: {type(error).__name__}. The terminal says more."
            finally:
                self._now = None
                work.is_done = True

    def _convert(self, work: Work) -> None:
        picture = work.project.picture()

        def on_text(piece: str) -> None:
            work.hear(piece)
            work.show(_unwrapped(work.text))

        def on_step(step: str) -> None:
            work.begin(step)
            work.text = ""

        conversion = self._converter.convert(picture, samples=self._samples, on_text=on_text, on_step=on_step)
        work.begin("comparing with the screenshot")
        kept = {id(candidate): self._added(work, candidate, picture) for candidate in conversion.candidates}
        work.versions = tuple(version.number for version in kept.values())
        work.best = kept[id(conversion.best)].number

    def _keep(self, work: Work, html: str, *, made_by: str, parent: int | None, note: str = "") -> None:
        work.begin("rendering and comparing")
        picture = work.project.picture()
        width_px = work.project.version(parent).width_px if parent is not None else None
        candidate = self._converter.judge(html, picture, width_px=width_px)
        version = self._added(work, candidate, picture, made_by=made_by, parent=parent, note=note)
        work.versions, work.best = (version.number,), version.number

    def _added(self, work: Work, candidate: Candidate, picture: Image.Image, **fields: Any) -> Version:
        work.check()
        new = NewVersion(
            html=candidate.html,
            made_by=fields.pop("made_by", candidate.engine),
            width_px=candidate.width_px,
            error=candidate.error or "",
            is_complete=candidate.finish is Finish.STOP,
            **fields,
        )
        if candidate.page is not None and candidate.score is not None:
            difference = compare(at_width(picture, candidate.width_px), candidate.page.png)
            new = dataclasses.replace(
                new,
                rendering_png=candidate.page.png,
                difference_png=difference.png,
                places=difference.places,
                terms={**dataclasses.asdict(candidate.score), "overall": candidate.score.overall},
            )
        return work.project.add(new)

    def _watched(self, engine: PageEngine) -> PageEngine:
        """An engine whose drafts are seen: the layout engine renders each that it corrects."""
        if isinstance(engine, LayoutEngine):
            renderer_of = self._converter.windows.renderer
            return LayoutEngine(
                lambda width_px: cast(Renderer, _Watched(renderer_of(width_px), self._drafted)),
                self._converter.measurer,
            )
        return engine

    def _drafted(self, html: str) -> None:
        if self._now is not None:
            self._now.show(html)


class _Watched:
    """Renders as a `Renderer` does, and tells what."""

    def __init__(self, renderer: Renderer, on_page: Callable[[str], None]) -> None:
        self._renderer = renderer
        self._on_page = on_page

    def render(self, html: str, capture: Capture) -> Page:
        self._on_page(html)
        return self._renderer.render(html, capture)


def _change_request(project: Project, html: str, wish: str) -> Request:
    screenshot = Picture(data=project.screenshot_path.read_bytes())
    asked = f"{CHANGE_INSTRUCTION}\n\nAsked for: {wish.strip()}\n\n```html\n{html}\n```"
    message = Message(role="user", parts=(screenshot, asked))
    return Request(messages=(message,), max_tokens=MAX_CHANGE_TOKENS, temperature=0.0)


def _unwrapped(text: str) -> str:
    """The page in what a model has written so far."""
    choice = Choice(text=text, finish=Finish.STOP, token_ids_T=np.empty(0, dtype=np.int64))
    return completion_of(choice).text


def _whole(text: str) -> str:
    """What a model wrote as a page that is well formed and stands alone. Raises InputError where it wrote none."""
    html = repair(text).html
    if "<" not in html:
        raise InputError("the model wrote no page", actual=text[:200])
    return html if html.lstrip()[:9].lower().startswith(("<!doctype", "<html")) else stand_alone(html)
