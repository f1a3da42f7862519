"""Configurations survive the way to disk and back, their hash is stable, and every mistake is named."""

import enum
import functools
import json
import operator
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.config import content_hash, from_dict, from_json, load, save, to_dict, to_json
from lensmith.core.errors import ConfigError


class Scripts(enum.Enum):
    OFF = "off"
    ON = "on"


class Depth(enum.IntEnum):
    SHALLOW = 2
    DEEP = 12


class Capture(enum.Flag):
    PICTURE = enum.auto()
    TEXTS = enum.auto()
    CHARS = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Pool:
    side_out: int = 12

    @property
    def num_tokens(self) -> int:
        return self.side_out**2


@dataclass(frozen=True, kw_only=True)
class Perceiver:
    num_queries: int
    heads: int = 8

    def __post_init__(self) -> None:
        if self.num_queries < 1:
            raise ValueError(f"num_queries must be at least 1, not {self.num_queries}")


@dataclass(frozen=True, kw_only=True)
class Model:
    connector: Pool | Perceiver = Pool()
    pool: Pool = Pool()
    second: Pool | None = None
    lr: float = 3e-4
    warmup_steps: int = 100
    name: str = "nano"
    bias: bool = False
    scripts: Scripts = Scripts.OFF
    depth: Depth = Depth.DEEP
    capture: Capture = Capture.PICTURE | Capture.TEXTS
    precision: Literal["bf16", "fp32", 8] = "bf16"
    folder: Path | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    sizes: tuple[int, ...] = ()
    poolings: tuple[Pool, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    number: float | int | str | None = None


finite = st.floats(allow_nan=False, allow_infinity=False)
pools = st.builds(Pool, side_out=st.integers())
models = st.builds(
    Model,
    connector=pools | st.builds(Perceiver, num_queries=st.integers(1), heads=st.integers()),
    pool=pools,
    second=st.none() | pools,
    lr=finite,
    warmup_steps=st.integers(),
    name=st.text(),
    bias=st.booleans(),
    scripts=st.sampled_from(Scripts),
    depth=st.sampled_from(Depth),
    capture=st.sets(st.sampled_from(Capture)).map(lambda flags: functools.reduce(operator.or_, flags, Capture(0))),
    precision=st.sampled_from(["bf16", "fp32", 8]),
    folder=st.none() | st.sampled_from([Path("a"), Path("/a/b"), Path("a b/ü")]),
    betas=st.tuples(finite, finite),
    sizes=st.lists(st.integers()).map(tuple),
    poolings=st.lists(pools, max_size=3).map(tuple),
    weights=st.dictionaries(st.text(), finite),
    number=st.none() | st.integers() | finite | st.text(),
)


@given(models)
def test_round_trip_through_json_keeps_values_and_types(model):
    back = from_json(Model, to_json(model))
    assert back == model
    assert type(back.number) is type(model.number)
    assert to_json(back) == to_json(model)


@given(models)
def test_equal_configs_have_equal_hashes(model):
    back = from_json(Model, to_json(model))
    assert content_hash(back) == content_hash(model)
    changed = replace(model, warmup_steps=model.warmup_steps + 1)
    assert content_hash(changed) != content_hash(model)


@given(st.text(min_size=1).filter(lambda key: key not in Model.__dataclass_fields__))
def test_any_unknown_key_is_an_error_that_names_a_valid_one(key):
    with pytest.raises(ConfigError) as caught:
        from_dict(Model, {key: 1})
    assert str(caught.value).startswith(f"{key}: unknown key of Model")
    assert any(repr(name) in caught.value.hint for name in Model.__dataclass_fields__)


def test_hash_is_the_sha256_of_canonical_json_in_every_process():
    # printf '{"side_out":12}' | sha256sum
    expected = "cde47cfb63f60214bcfb0c79fa74d822bea68f7f0abe083abb7b003dec21f4e2"
    program = (
        "from dataclasses import dataclass\nfrom lensmith.core.config import content_hash\n"
        "@dataclass(frozen=True)\nclass Pool:\n    side_out: int = 12\nprint(content_hash(Pool()))"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert content_hash(Pool()) == fresh == expected


def test_equal_numbers_hash_equally_however_they_were_written():
    assert content_hash(Model(lr=1)) == content_hash(Model(lr=1.0))
    assert content_hash(Model(lr=-0.0)) == content_hash(Model(lr=0.0))


def test_a_saved_file_holds_fields_and_nothing_derived(tmp_path):
    path = tmp_path / "new" / "model.json"
    save(Model(pool=Pool(side_out=3)), path)
    text = path.read_text()
    assert json.loads(text)["pool"] == {"side_out": 3}
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert load(Model, path) == Model(pool=Pool(side_out=3))
    assert [entry.name for entry in path.parent.iterdir()] == ["model.json"]


def test_plain_form_of_each_kind_of_field():
    values = to_dict(
        Model(
            connector=Perceiver(num_queries=4),
            second=Pool(side_out=1),
            capture=Capture.TEXTS | Capture.CHARS,
            folder=Path("x/y"),
            sizes=(1, 2),
            number=1,
        )
    )
    assert values["connector"] == {"class": "Perceiver", "num_queries": 4, "heads": 8}
    assert values["second"] == {"side_out": 1}
    assert values["scripts"] == "off"
    assert values["depth"] == "DEEP"
    assert values["capture"] == "TEXTS|CHARS"
    assert values["folder"] == "x/y"
    assert values["sizes"] == [1, 2]
    assert type(values["number"]) is int


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"warmup_step": 5}, ["warmup_step: unknown key", "'warmup_steps'"]),
        ({"pool": {"side_outt": 5}}, ["pool.side_outt: unknown key of Pool", "'side_out'"]),
        ({"pool": {"num_tokens": 144}}, ["pool.num_tokens", "derives"]),
        ({"poolings": [{}, {"side": 1}]}, ["poolings[1].side: unknown key", "'side_out'"]),
        ({"connector": {"side_out": 3}}, ["connector.class", "Pool, Perceiver"]),
        ({"connector": {"class": "Percever", "num_queries": 3}}, ["connector.class", "'Perceiver'"]),
        ({"connector": {"class": "Perceiver"}}, ["connector.num_queries: required"]),
        ({"connector": {"class": "Perceiver", "num_queries": 0}}, ["connector: num_queries must be at least 1"]),
        ({"lr": "fast"}, ["lr: wrong type", "float", "'fast' (str)"]),
        ({"lr": True}, ["lr: wrong type", "True (bool)"]),
        ({"lr": float("nan")}, ["lr: not a finite number"]),
        ({"lr": 10**400}, ["lr: not a finite number"]),
        ({"warmup_steps": 1.0}, ["warmup_steps: wrong type", "int"]),
        ({"warmup_steps": True}, ["warmup_steps: wrong type"]),
        ({"bias": 1}, ["bias: wrong type", "bool"]),
        ({"name": None}, ["name: wrong type", "str"]),
        ({"pool": None}, ["pool: wrong type", "the keys of Pool"]),
        ({"second": 4}, ["second: wrong type", "Pool or None"]),
        ({"scripts": "offf"}, ["scripts: no such Scripts", "off, on", "'off'"]),
        ({"depth": 12}, ["depth: no such Depth"]),
        ({"capture": "TEXT"}, ["capture: no such Capture", "'TEXTS'"]),
        ({"precision": "fp16"}, ["precision: not one of"]),
        ({"precision": 8.0}, ["precision: not one of"]),
        ({"betas": [0.9]}, ["betas: wrong number of values", "2", "1"]),
        ({"betas": [0.9, "x"]}, ["betas[1]: wrong type"]),
        ({"sizes": "12"}, ["sizes: wrong type"]),
        ({"sizes": {"0": 1}}, ["sizes: wrong type"]),
        ({"weights": {"a": "b"}}, ["weights.a: wrong type"]),
        ({"folder": 3}, ["folder: wrong type"]),
    ],
)
def test_each_mistake_is_named_with_its_path(values, words):
    with pytest.raises(ConfigError) as caught:
        from_dict(Model, values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Model(lr=float("inf")), "lr"),
        (Model(sizes=[1, 2]), "sizes"),
        (Model(name=Path("x")), "name"),
        (Model(scripts="off"), "scripts"),
        (Model(pool=Perceiver(num_queries=1)), "wrong type"),
    ],
)
def test_a_value_of_another_type_is_not_written(model, path):
    with pytest.raises(ConfigError, match=path):
        to_dict(model)


def test_a_value_that_would_be_read_back_as_another_type_is_not_written():
    @dataclass(frozen=True, kw_only=True)
    class Ambiguous:
        place: str | Path

    assert to_dict(Ambiguous(place="a")) == {"place": "a"}
    with pytest.raises(ConfigError, match="would be read back"):
        to_dict(Ambiguous(place=Path("a")))


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"lr": NaN}', '{"lr": 1, "lr": 2}', '"text"', b"\xff\xfe\x00", "[" * 9999]
)
def test_text_that_is_no_configuration_is_a_config_error(text):
    with pytest.raises(ConfigError):
        from_json(Model, text)


def test_a_missing_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        load(Model, tmp_path / "nowhere.json")


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "model.json"
    save(Model(name="old"), path)
    with pytest.raises(ConfigError):
        save(Model(name="new", lr=float("nan")), path)
    assert load(Model, path).name == "old"


@dataclass(frozen=True, kw_only=True)
class Loose:
    values: dict[str, Any]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values))
def test_any_json_value_is_kept_as_it_is(values):
    assert from_json(Loose, to_json(Loose(values=values))) == Loose(values=values)


@pytest.mark.parametrize("value", [(1,), {1: 2}, float("nan"), {"deep": [object()]}, b"x"])
def test_what_json_cannot_hold_is_not_a_json_value(value):
    with pytest.raises(ConfigError, match=r"values\.key"):
        to_dict(Loose(values={"key": value}))


def test_an_unsupported_field_type_is_the_programmers_error():
    @dataclass(frozen=True, kw_only=True)
    class Wrong:
        values: set[int]

    with pytest.raises(TypeError, match="cannot have the type"):
        from_dict(Wrong, {"values": [1]})
