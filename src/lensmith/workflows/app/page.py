"""What a person sees: the start page, and the desk on which one project lies.

Everything here runs in the server's event loop, once for each tab; pages are made in the studio's thread, which the
desk looks at four times a second. What must follow a finger (the slider, the size of a frame, dropping and pasting) is
in `app.js`.

Why NiceGUI: it is a kept framework with a real code editor (CodeMirror) in its wheel, loads nothing from elsewhere, and
keeps each tab's state in Python, so that this folder's script is a page long. What it costs is said in `docs/app.md`.
Its components are not used where the browser has an element of its own (`elements`), which is what axe-core asks for.
"""

from dataclasses import dataclass

from nicegui import ui

from lensmith.core.errors import InputError
from lensmith.workflows.app.desk import Desk
from lensmith.workflows.app.elements import brand, opener, tag
from lensmith.workflows.app.routes import Drafts
from lensmith.workflows.app.store import Project, Store
from lensmith.workflows.app.studio import Studio

MOST_RECENT = 12
HERE = "It is read, rebuilt and compared on this machine. Nothing leaves it."
ELSEWHERE = "It is compared on this machine, and sent to the endpoint that you have named, nowhere else."


@dataclass(frozen=True, kw_only=True)
class Site:
    """What all pages share. `path`: from slash to slash."""

    path: str
    store: Store
    studio: Studio
    drafts: Drafts

    def build(self) -> None:
        """The page that a tab asks for: of `?project=`, or the start."""
        client = ui.context.client
        ui.add_head_html(
            f'<link rel="stylesheet" href="{self.path}own/app.css"><script src="{self.path}own/app.js" defer></script>'
        )
        project_id = client.request.query_params.get("project", "")
        if not project_id:
            self._start()
            return
        try:
            project = self.store.project(project_id)
        except InputError:
            self._start(note="That project is not in this folder. Here is what is.")
            return
        ui.page_title(f"{project.name} · lensmith")
        with tag("div", classes="shell desk"):
            Desk(path=self.path, project=project, studio=self.studio, drafts=self.drafts).build()
        drop_veil()

    def _start(self, note: str = "") -> None:
        ui.page_title("lensmith")
        with tag("div", classes="shell start"):
            brand(self.path)
            if note:
                tag("p", note, classes="note", role="status")
            with tag("section", classes="hero", aria_labelledby="hero"):
                tag("h1", "Turn a screenshot into a page", id="hero")
                tag("p", ELSEWHERE if self.studio.takes_wishes else HERE, classes="lead")
                opener("Open a screenshot", classes="drop", hint="or drop it here, or paste it with Ctrl+V")
                tag("p", classes="alert", id="alert", role="alert")
            self._recent()
        drop_veil()

    def _recent(self) -> None:
        projects = self.store.projects()[:MOST_RECENT]
        if not projects:
            return
        with tag("section", classes="recent", aria_labelledby="recent"):
            tag("h2", "Recent", id="recent")
            with tag("ul"):
                for project in projects:
                    self._card(project)

    def _card(self, project: Project) -> None:
        versions = project.versions()
        count = f"{len(versions)} version{'s' if len(versions) != 1 else ''}"
        best = max((version.overall for version in versions if version.overall is not None), default=None)
        with tag("li"), tag("a", href=f"{self.path}?project={project.id}", classes="card"):
            tag("img", src=f"{self.path}projects/{project.id}/screenshot.png", alt="", loading="lazy")
            tag("strong", project.name)
            tag("span", count if best is None else f"{count}, the closest {best:.0%}", classes="dim")


def drop_veil() -> None:
    """What covers the page while a file is dragged over it."""
    with tag("div", classes="veil", aria_hidden="true"):
        tag("p", "Drop the screenshot")
