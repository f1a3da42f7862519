"""What is kept is kept whole, under a number of its own, and found again."""

import dataclasses
import json
import threading

import pytest
from PIL import Image

from lensmith.core.errors import InputError
from lensmith.workflows.app.difference import Spot
from lensmith.workflows.app.store import EDIT, NewVersion, Store

PLACE = Spot(left_px=1, top_px=2, width_px=3, height_px=4, share=0.5, what="missing")
NEW = NewVersion(
    html="<p>Grüße</p>",
    made_by="layout",
    width_px=640,
    rendering_png=b"png",
    difference_png=b"other png",
    terms={"overall": 0.5, "pixel": 0.25},
    places=(PLACE,),
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "kept")


@pytest.fixture
def project(store):
    return store.create("page.png", Image.new("RGB", (40, 30), "red"))


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_program_finds_all_that_was_kept(store, project):
    project.add(NEW)
    project.add(dataclasses.replace(NEW, made_by=EDIT, parent=1, note="why", error="too high", terms={}))
    (found,) = Store(store.folder).projects()
    assert (found.id, found.name, found.created) == (project.id, "page.png", project.created)
    assert found.picture().getpixel((3, 3)) == (255, 0, 0)
    first, second = found.versions()
    assert (first.number, first.made_by, first.overall, first.places) == (1, "layout", 0.5, (PLACE,))
    assert (second.number, second.parent, second.note, second.error, second.overall) == (2, 1, "why", "too high", None)
    assert found.html(1) == NEW.html
    assert found.path(2, "difference.png").read_bytes() == b"other png"


def test_nothing_is_overwritten(project):
    project.add(NEW)
    before = files_in(project.folder)
    project.add(dataclasses.replace(NEW, html="<p>other</p>"))
    after = files_in(project.folder)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 4


def test_many_at_once_take_different_numbers(project):
    threads = [threading.Thread(target=project.add, args=[NEW]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [version.number for version in project.versions()] == list(range(1, 9))


def test_a_version_that_was_cut_short_is_none_and_its_number_is_not_taken_again(project):
    project.add(NEW)
    (project.folder / "2").mkdir()
    (project.folder / "2" / "page.html").write_text("half")
    assert [version.number for version in project.versions()] == [1]
    with pytest.raises(InputError, match="no such version"):
        project.html(2)
    assert project.add(NEW).number == 3


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"number": 1}', "\x00"])
def test_what_is_damaged_is_left_out_and_said(store, project, damage, caplog):
    project.add(NEW)
    project.add(NEW)
    project.path(1, "version.json").write_text(damage)
    assert [version.number for version in project.versions()] == [2]
    assert "left out" in caplog.text
    other = store.create("other", Image.new("RGB", (4, 4)))
    (project.folder / "project.json").write_text(damage)
    assert [each.id for each in store.projects()] == [other.id]


@pytest.mark.parametrize(
    "project_id", ["", "..", "../x", "20260101-000000-abcdef", "20260101-000000-abcdef/../x", "a/b"]
)
def test_an_id_that_is_none_leads_nowhere(store, project, project_id):
    with pytest.raises(InputError, match="no such project"):
        store.project(project_id)


def test_a_name_may_be_anything(store):
    names = [store.create(name, Image.new("RGB", (4, 4))).name for name in ("a\nb\x00c", "", "x" * 500, "<b>&")]
    assert names == ["a b c", "Screenshot", "x" * 120, "<b>&"]
    assert json.loads((store.folder / store.projects()[-1].id / "project.json").read_text())["name"] in names
