"""Families are known by their registry alone: each has the same files, and nothing else names one."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import lensmith
from lensmith.core.errors import CheckpointError, ConfigError, InputError
from lensmith.models.checkpoints.folder import Loaded
from lensmith.models.families import registry
from lensmith.models.families.base import Family
from lensmith.models.inference.loading import load_answering, load_vision_language
from tests.support.tiny_deepseek import save_own, tiny_model

SRC = Path(lensmith.__file__).parent
FOLDERS = SRC / "models" / "families"
FIXED_FILES = ("__init__.py", "README.md", "config.py", "loading.py", "processor.py")
NAMES = re.compile("|".join([*registry.FAMILIES, *(name.replace("_vl", "") for name in registry.FAMILIES)]), re.I)
MAY_NAME_A_FAMILY = {
    "recipes/__init__.py": "the table of recipes, each of which makes a model of one family",
    "recipes/deepseek_vl.py": "a recipe is how a family's models are made",
    "recipes/mixtures.py": "whose paper gives a mixture",
    "recipes/sightseer.py": "a recipe is how a family's models are made",
    "recipes/mm1.py": "the same",
    "recipes/pretraining.py": "the same: of whose parts a model that is pre-trained may consist",
    "workflows/training/__init__.py": "which way a recipe is run",
    "workflows/training/sightseer.py": "runs the stages of that recipe",
}
TEXTS_FOR_PEOPLE = {"help", "metavar"}


def modules() -> list[Path]:
    return sorted(path for path in SRC.rglob("*.py") if FOLDERS not in path.parents)


def names_in(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Identifiers, imported modules, and strings, but for docstrings, help texts and what a person is shown."""
    spared = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            spared.add(node.value)
        if isinstance(node, ast.keyword) and node.arg in TEXTS_FOR_PEOPLE:
            spared.update(ast.walk(node.value))
        if isinstance(node, ast.JoinedStr):
            spared.update(part for part in node.values if isinstance(part, ast.Constant) and " " in str(part.value))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            spared.add(node)  # a sentence decides nothing
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.ImportFrom(module=module):
                yield line, module or ""
                yield from ((line, alias.name) for alias in node.names)
            case ast.Import():
                yield from ((line, alias.name) for alias in node.names)
            case ast.Constant(value=str() as text) if node not in spared:
                yield line, text


def test_nothing_outside_the_families_names_one():
    paths = modules()
    assert len(paths) > 200
    found = {}
    for path in paths:
        name = path.relative_to(SRC).as_posix()
        lines = [f"{line}: {word}" for line, word in names_in(ast.parse(path.read_text())) if NAMES.search(word)]
        if lines:
            found[name] = lines
    assert {name: lines for name, lines in found.items() if name not in MAY_NAME_A_FAMILY} == {}
    assert found.keys() == MAY_NAME_A_FAMILY.keys(), "what needs no leave should have none"


@pytest.mark.parametrize(
    "code",
    [
        "from lensmith.models.families.deepseek_vl import load",
        "import lensmith.models.families.sightseer as s",
        "if kind == 'deepseek_vl': pass",
        "def load_deepseek(): pass",
        "x.sightseer = 1",
    ],
)
def test_the_check_sees_a_planted_name(code):
    assert any(NAMES.search(word) for _, word in names_in(ast.parse(code)))


@pytest.mark.parametrize("name", registry.FAMILIES)
def test_every_family_has_the_same_files(name):
    folder = FOLDERS / name
    assert [file for file in FIXED_FILES if not (folder / file).is_file()] == []
    assert (folder / "convert.py").is_file() == (registry.FAMILIES[name].convert is not None), "foreign layouts only"
    assert bool(registry.FAMILIES[name].layouts) == (registry.FAMILIES[name].convert is not None)


def test_every_folder_is_in_the_registry():
    folders = {path.name for path in FOLDERS.iterdir() if (path / "__init__.py").is_file()}
    assert folders == registry.FAMILIES.keys()
    assert len(folders) >= 2


def test_shipped_models_are_there_and_recognised():
    assert registry.DEFAULT_MODEL in registry.FAMILIES["sightseer"].shipped
    for family in registry.FAMILIES.values():
        for name, folder in family.shipped.items():
            assert registry.resolved(name) == folder
            assert registry.family_of(folder) is family
    assert registry.resolved(None) == registry.resolved(registry.DEFAULT_MODEL)
    assert registry.resolved("elsewhere") == "elsewhere"


def test_a_saved_model_is_recognised_by_its_processor(tmp_path):
    folder = save_own(tmp_path / "own", tiny_model("mlp"))
    assert registry.family_of(folder) is registry.FAMILIES["deepseek_vl"]
    assert registry.family_of(tmp_path) is None
    assert registry.family_of("deepseek-ai/deepseek-vl-7b-chat") is registry.FAMILIES["deepseek_vl"]
    assert registry.family_of("somebody/else-7b") is None


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    for load in (load_answering, load_vision_language):
        with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
            load(tmp_path)


def test_a_damaged_processor_is_named(tmp_path):
    folder = save_own(tmp_path / "own", tiny_model("mlp"))
    (folder / "processor_config.json").write_text('{"processor_class": ')
    with pytest.raises(CheckpointError, match=r"cannot read .*processor_config\.json"):
        load_answering(folder)


def test_options_are_the_familys_own(tmp_path):
    shipped = registry.FAMILIES["sightseer"]
    deepseek = registry.FAMILIES["deepseek_vl"]
    asked = {"exact": "transformers", "picture_decoding": "as-seen"}
    registry.check_options(asked)
    assert registry.options_for(deepseek, asked) == asked
    assert registry.options_for(shipped, {"picture_decoding": "as-seen"}) == {}, "what every other model does"
    assert registry.options_for(None, {}) == {}
    for family in (shipped, None):
        with pytest.raises(InputError, match="published in one variant"):
            registry.options_for(family, {"exact": "original"})
        with pytest.raises(InputError, match="in one way"):
            registry.options_for(family, {"picture_decoding": "stored"})
    with pytest.raises(InputError, match="original or transformers"):
        registry.check_options({"exact": "nearly"})
    with pytest.raises(InputError, match="tiles: no model family"):
        registry.check_options({"tiles": "4"})


@pytest.fixture
def other_families(monkeypatch):
    """Lets another package's entry points be found; what is known of families is forgotten before and after."""

    def install(**values: str) -> None:
        points = [EntryPoint(name=name, value=value, group=registry.ENTRY_POINTS) for name, value in values.items()]
        monkeypatch.setattr(
            "importlib.metadata.entry_points", lambda group: points if group == registry.ENTRY_POINTS else []
        )
        registry.all_families.cache_clear()

    yield install
    registry.all_families.cache_clear()


def _load_elsewhere(source, *, dtype, device, tone="flat"):
    return Loaded(*registry.FAMILIES["sightseer"].load(registry.resolved(None), dtype=dtype, device=device))


OTHER = Family(title="Other", recognises=lambda source: str(source) == "other/model", load=_load_elsewhere)
NO_FAMILY = object()


def test_another_package_adds_a_family(other_families):
    other_families(other=f"{__name__}:OTHER")
    assert registry.all_families()["other"] is OTHER
    answering = load_answering("other/model", dtype=torch.float32)
    assert answering.name == "model"
    assert answering.prompts.reads_pictures


def test_an_entry_point_that_is_none_is_named(other_families):
    other_families(sightseer=f"{__name__}:OTHER")
    with pytest.raises(ConfigError, match="there is a model family 'sightseer' already"):
        registry.all_families()
    other_families(other=f"{__name__}:NO_FAMILY")
    with pytest.raises(ConfigError, match="gives no model family"):
        registry.all_families()
