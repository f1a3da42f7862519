"""The desk on which one project lies: its stage, its panels, and what happens when something is made or edited.

What is edited is shown at once, and kept as a version when the person says so, turns to another version, or goes away.
"""

import enum
import json
import time
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from lensmith.core.errors import InputError
from lensmith.workflows.app.elements import VALUE, RadioGroup, brand, button, change, opener, tag
from lensmith.workflows.app.panels import announce, fill_score, fill_versions, grade
from lensmith.workflows.app.pictures import Parted, joined, parted
from lensmith.workflows.app.routes import Drafts
from lensmith.workflows.app.stage import Stage, View
from lensmith.workflows.app.store import Project, Version
from lensmith.workflows.app.studio import Studio, Work

LOOK_S = 0.25
"""How often the studio's work is looked at."""
REST_S = 0.35
"""How long the keys must rest before what was typed is shown."""
COPY_LIMIT_S = 10.0
"""How long a browser may take to say whether a copy is in the clipboard; some ask the person first."""
MOST_STREAMED_CHARS = 1600
"""How much of what a model writes is shown, from the end."""


class Panel(enum.StrEnum):
    """What the right side shows."""

    SCORE = "score"
    CODE = "code"
    VERSIONS = "versions"
    ASK = "ask"


PANELS = {Panel.SCORE: "Score", Panel.CODE: "Code", Panel.VERSIONS: "Versions", Panel.ASK: "Ask"}


class Desk:
    """Built once a tab."""

    def __init__(self, *, path: str, project: Project, studio: Studio, drafts: Drafts) -> None:
        self._path, self._project, self._studio, self._drafts = path, project, studio, drafts
        self._base = f"{path}projects/{project.id}/"
        self._tab = ui.context.client.id
        self._shown: Version | None = None
        self._page = Parted(html="", addresses={})
        self._edited: str | None = None
        self._typed_at = 0.0
        self._is_shown = True
        self._watched: tuple[Work, int] | None = None
        self._wish = ""

    def build(self) -> None:
        """Puts everything on the page, shows the closest version, and begins to look at what is being made."""
        self._header()
        with tag("div", classes="columns"):
            self._stage = Stage(path=self._path, project=self._project)
            with tag("section", classes="side", aria_label="Details"):
                self._choice = RadioGroup("Details", list(PANELS.items()), value=Panel.SCORE, on_change=self._turn_to)
                self._panels = {
                    Panel.SCORE: tag("div", classes="panel", tabindex=0, role="region", aria_label="Score"),
                    Panel.CODE: self._code(),
                    Panel.VERSIONS: tag("div", classes="panel", tabindex=0, role="region", aria_label="Versions"),
                    Panel.ASK: self._ask(),
                }
        self._turn_to(Panel.SCORE)
        versions = self._project.versions()
        self._settle(max(versions, key=lambda version: version.overall or -1.0, default=None))
        self._stage.look(View.SLIDER if versions else View.SIDE)
        client = ui.context.client
        client.on_disconnect(self._leave)
        ui.timer(LOOK_S, self._look)

    def _header(self) -> None:
        with tag("div", classes="bar"):
            brand(self._path)
            with tag("div", classes="name"):
                tag("h1", self._project.name)
                self._badge = tag("span", classes="badge")
            with tag("div", classes="actions"):
                self._copy = button("Copy HTML", self._copied, disabled=True)
                self._downloads = {
                    kind: tag("a", kind.upper(), classes="button", download="") for kind in ("html", "zip")
                }
                change(self._downloads["html"], aria_label="Download the page as one HTML file")
                change(self._downloads["zip"], aria_label="Download a ZIP: the page, and its pictures as files")
                opener("New screenshot", classes="inline")
        tag("p", classes="alert", id="alert", role="alert")
        with tag("div", classes="progress") as self._progress:
            tag("span", classes="spinner", aria_hidden="true")
            self._status = tag("p", role="status")
            self._stop = button("Stop", self._stopped, classes="button small")
        self._stream = tag("pre", classes="stream", aria_hidden="true")
        for element in (self._progress, self._stream):
            element.set_visibility(False)

    def _code(self) -> TextElement:
        with tag("div", classes="panel code") as panel:
            with tag("div", classes="keep"):
                self._keep_button = button("Keep as a version", self._keep, classes="button primary", disabled=True)
                self._edit_note = tag("span", "Ctrl+S keeps it · Esc, then Tab leaves the editor", classes="dim")
            self._editor = ui.codemirror(
                "", language="HTML", theme="vscodeLight", line_wrapping=True, indent="  ", on_change=self._typed
            ).classes("editor")
        for keys in ("ctrl.s", "meta.s"):
            panel.on(f"keydown.{keys}.prevent", self._keep, args=[])
        return panel

    def _ask(self) -> TextElement:
        with tag("div", classes="panel ask") as panel:
            if not self._studio.takes_wishes:
                tag("h2", "Ask for a change in words")
                tag("p", "This needs a model that reads pictures. Start the app with one:")
                tag("code", "lensmith app --endpoint URL --model NAME", classes="line")
                return panel
            tag("label", "What should change?", for_="wish")
            hint = "for example: make the header dark, and the buttons round"
            self._wish_box = tag("textarea", id="wish", rows=4, placeholder=hint)
            self._wish_box.on("input", self._wished, js_handler=VALUE)
            self._ask_button = button("Change the page", self._asked, classes="button primary")
            tag(
                "p",
                "The model gets the screenshot and the version that is shown. What it writes becomes a new one.",
                classes="dim",
            )
        return panel

    # --- what a person does ---------------------------------------------------------------------------------------

    def _turn_to(self, panel: str) -> None:
        self._choice.set(panel)
        for name, element in self._panels.items():
            element.set_visibility(name == panel)

    def _typed(self, event: Any) -> None:
        if self._shown is None or event.value == self._page.html:
            self._set_edited(None)
            return
        self._set_edited(joined(event.value, self._page.addresses))
        self._typed_at, self._is_shown = time.monotonic(), False

    def _set_edited(self, html: str | None) -> None:
        self._edited = html
        change(self._keep_button, disabled=html is None)

    def _keep(self) -> None:
        if self._edited is None or self._shown is None:
            return
        self._studio.keep(self._project, self._edited, parent=self._shown.number)
        self._set_edited(None)

    def _pick(self, number: int) -> None:
        if self._edited is not None:
            self._keep()
            announce("Your edit is kept as a version of its own.")
        self._settle(self._project.version(number))

    def _wished(self, event: Any) -> None:
        self._wish = str(event.args)

    def _asked(self) -> None:
        if self._shown is None:
            return
        self._keep()
        try:
            self._studio.change(self._project, self._shown.number, self._wish)
        except InputError:
            announce("Say first what should change.", is_bad=True)

    async def _copied(self) -> None:
        if self._shown is None:
            return
        html = self._project.html(self._shown.number) if self._edited is None else self._edited
        try:
            is_copied = await ui.run_javascript(f"return lensmith.copy({json.dumps(html)})", timeout=COPY_LIMIT_S)
        except TimeoutError:
            is_copied = False
        if is_copied:
            announce("The HTML is in the clipboard.")
        else:
            announce("The browser does not let this page write to the clipboard. Download it instead.", is_bad=True)

    def _stopped(self) -> None:
        work = self._studio.work_of(self._project.id)
        if work is not None:
            work.is_stopped = True

    def _point_at(self, number: int) -> None:
        self._stage.look(View.DIFFERENCE)
        ui.run_javascript(f"lensmith.pointAt('place-{number}')")

    def _leave(self) -> None:
        self._keep()
        self._drafts.forget(self._tab)

    # --- what is shown --------------------------------------------------------------------------------------------

    def _settle(self, version: Version | None) -> None:
        """Shows a version, or that there is none yet."""
        self._shown = version
        for element in self._downloads.values():
            element.set_visibility(version is not None)
        change(self._copy, disabled=version is None)
        self._list()
        if version is None:
            with self._panels[Panel.SCORE]:
                tag("p", "The score comes with the first version.", classes="empty")
            return
        self._stage.show(version)
        fill_score(self._panels[Panel.SCORE], version, self._point_at)
        shown = "not rendered" if version.overall is None else f"{version.overall:.0%} alike"
        self._badge.text = f"Version {version.number} · {shown}"
        self._badge.classes(replace=f"badge {grade(version.overall or 0.0)}")
        for kind, element in self._downloads.items():
            change(element, href=f"{self._base}{version.number}/download.{kind}")
        if self._edited is None:
            # In the editor, pictures are names: nobody reads a hundred thousand letters of base64.
            self._page = parted(self._project.html(version.number))
            self._editor.value = self._page.html

    def _list(self) -> None:
        versions, shown = self._project.versions(), 0 if self._shown is None else self._shown.number
        panel = self._panels[Panel.VERSIONS]
        fill_versions(panel, versions, base=self._base, shown=shown, on_pick=self._pick)

    def _look(self) -> None:
        """Follows what is typed, and what is made."""
        if not self._is_shown and time.monotonic() - self._typed_at >= REST_S and self._edited is not None:
            self._is_shown = True
            self._drafts.put(self._tab, self._edited)
            self._stage.show_live(f"{self._path}drafts/{self._tab}?{self._typed_at}")
            self._stage.look(View.LIVE)
        work = self._studio.work_of(self._project.id)
        is_busy = work is not None and not work.is_done
        self._progress.set_visibility(is_busy)
        if work is None:
            return
        if self._watched is None or self._watched[0] is not work:
            if work.is_done and self._watched is None and self._shown is not None:  # made before this tab was there
                self._watched = work, -1
                return
            self._watched = work, 0
        if is_busy:
            self._follow(work)
        elif self._watched[1] >= 0:
            self._watched = work, -1
            self._finish(work)

    def _follow(self, work: Work) -> None:
        said = f"{work.title}: {work.step} …"
        if self._status.text != said:
            self._status.text = said
        self._stream.set_visibility(bool(work.text))
        if work.text:
            self._stream.text = work.text[-MOST_STREAMED_CHARS:]
        assert self._watched is not None
        if work.drafts != self._watched[1]:
            self._watched = work, work.drafts
            self._stage.show_making(f"{self._base}work?{work.drafts}")

    def _finish(self, work: Work) -> None:
        self._stream.set_visibility(False)
        self._status.text = ""
        if work.error:
            self._fail(work)
        elif work.best is not None and self._edited is not None:  # whoever types is not interrupted
            self._list()
            announce(f"Version {work.best} is kept.")
        elif work.best is not None:
            is_first = self._shown is None
            self._settle(self._project.version(work.best))
            if is_first:
                self._stage.look(View.SLIDER)
            announce("The page is made." if is_first else f"Version {work.best} is kept.")

    def _fail(self, work: Work) -> None:
        announce(work.error, is_bad=True)
        ui.run_javascript(f"lensmith.alert({json.dumps(work.error)})")
