"""Projects in a folder: a screenshot, and every page that was made of it. Nothing is ever overwritten.

    FOLDER/20260501-101500-3fa2c1/project.json       what it is called, and since when it is there
                                 /screenshot.png     as it was read: upright, on white
                                 /3/page.html        the third version
                                 /3/rendering.png    what it looks like, and difference.png beside the screenshot
                                 /3/version.json     written last: without it there is no third version

So a version that a crash cut short is as if it had never been, and two programs that share a folder take different
numbers. What cannot be read any more is left out and logged, so that one damaged file does not hide the others.
"""

import dataclasses
import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from PIL import Image

from lensmith.core.errors import InputError
from lensmith.core.files import write_atomic
from lensmith.core.images import open_picture
from lensmith.workflows.app.difference import Spot, encoded

LOG = logging.getLogger(__name__)
EDIT, CHANGE = "edit", "change"
"""Who made a version, where it was no engine: a person in the editor, or an endpoint that was asked for a change."""
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
_MOST_NAME_CHARS = 120


@dataclass(frozen=True, kw_only=True)
class Version:
    """One page of a project, without the page itself.

    `made_by`: an engine's name, EDIT or CHANGE; `note`: what was asked for; `parent`: the version that it was made of.
    `terms`: the fields of its `PictureScore`, and `overall`; empty where it did not render, which `error` explains.
    `places`: where it differs most from the screenshot, the worst first.
    """

    number: int
    made_by: str
    created: str
    width_px: int
    note: str = ""
    parent: int | None = None
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    places: tuple[Spot, ...] = ()
    error: str = ""
    is_complete: bool = True

    @property
    def overall(self) -> float | None:
        """How alike it looks, in [0, 1]; None where it did not render."""
        return self.terms.get("overall")

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """From what `version.json` holds. Raises TypeError, KeyError or ValueError where it is none."""
        places = tuple(Spot(**place) for place in data["places"])
        terms = {str(name): float(value) for name, value in data["terms"].items()}
        return cls(**{**data, "places": places, "terms": terms})


@dataclass(frozen=True, kw_only=True)
class NewVersion:
    """A page that is to be kept: a `Version` before it has a number and a time, and its files."""

    html: str
    made_by: str
    width_px: int
    rendering_png: bytes = b""
    difference_png: bytes = b""
    note: str = ""
    parent: int | None = None
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)
    places: tuple[Spot, ...] = ()
    error: str = ""
    is_complete: bool = True


@dataclass(frozen=True, kw_only=True)
class Project:
    """A screenshot and its versions, in a folder."""

    folder: Path
    name: str
    created: str

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def screenshot_path(self) -> Path:
        return self.folder / "screenshot.png"

    def picture(self) -> Image.Image:
        """The screenshot. Raises ImageError where it cannot be read any more."""
        return open_picture(self.screenshot_path)

    def versions(self) -> list[Version]:
        """In the order in which they were made."""
        numbers = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())
        return [version for number in numbers if (version := self._read(number)) is not None]

    def version(self, number: int) -> Version:
        """Raises InputError where there is none of that number."""
        found = self._read(number)
        if found is None:
            raise InputError("there is no such version", actual=number)
        return found

    def path(self, number: int, file: str) -> Path:
        """A file of a version: page.html, rendering.png or difference.png."""
        return self.folder / str(number) / file

    def html(self, number: int) -> str:
        """The page. Raises InputError where there is none of that number."""
        self.version(number)
        return self.path(number, "page.html").read_text(encoding="utf-8")

    def add(self, new: NewVersion) -> Version:
        """Keeps a page under the next number. Raises OSError where it cannot be written."""
        number = self._next_number()
        fields = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
        files = {"page.html": fields.pop("html").encode()}
        files |= {"rendering.png": fields.pop("rendering_png"), "difference.png": fields.pop("difference_png")}
        version = Version(number=number, created=_now(), **fields)
        for name, data in files.items():
            if data:
                write_atomic(self.path(number, name), data)
        written = dataclasses.asdict(version)
        write_atomic(self.path(number, "version.json"), json.dumps(written, indent=1))
        return version

    def _next_number(self) -> int:
        number = max((int(path.name) for path in self.folder.iterdir() if path.name.isdecimal()), default=0) + 1
        while True:
            try:
                (self.folder / str(number)).mkdir()  # who makes the folder has the number
            except FileExistsError:
                number += 1
            else:
                return number

    def _read(self, number: int) -> Version | None:
        path = self.path(number, "version.json")
        try:
            return Version.read(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            LOG.warning("%s is left out, as it cannot be read: %s", path, error)
            return None


class Store:
    """All projects of a folder, which is made when it is first written into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, name: str, picture: Image.Image) -> Project:
        """A new project of a screenshot. Raises OSError where it cannot be written."""
        while True:
            folder = self.folder / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
            if not folder.exists():
                break
        project = Project(folder=folder, name=_short(name), created=_now())
        write_atomic(project.screenshot_path, encoded(picture))
        described = {"name": project.name, "created": project.created}
        write_atomic(folder / "project.json", json.dumps(described))
        return project

    def project(self, project_id: str) -> Project:
        """Raises InputError where there is none of that id, which may be anything."""
        found = self._read(self.folder / project_id) if _ID.fullmatch(project_id) else None
        if found is None:
            raise InputError("there is no such project", actual=project_id[:60])
        return found

    def projects(self) -> list[Project]:
        """The newest first."""
        return list(self._newest_first())

    def _newest_first(self) -> Iterator[Project]:
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir(), reverse=True):
            if _ID.fullmatch(path.name) and (project := self._read(path)) is not None:
                yield project

    def _read(self, folder: Path) -> Project | None:
        path = folder / "project.json"
        try:
            described = json.loads(path.read_bytes())
            return Project(folder=folder, name=str(described["name"]), created=str(described["created"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            LOG.warning("%s is left out, as it cannot be read: %s", path, error)
            return None


def _short(name: str) -> str:
    """A name as a line of text that is not too long."""
    words = " ".join("".join(char if char.isprintable() else " " for char in name).split())
    return words[:_MOST_NAME_CHARS] or "Screenshot"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
