import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lensmith.cli.defences import defences
from lensmith.core.endpoint import RefusedError, Request
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Exposure, log_softmax
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.workflows.defences.cases import HONEST, Defence
from lensmith.workflows.defences.page import as_dict, as_html, as_text
from lensmith.workflows.defences.run import DefenceOptions, load_logits, read_logits, study_source
from lensmith.workflows.defences.study import study_defences

HOSTILE = "<img src=x onerror=alert(1)>\x1b]0;\u202e"


@pytest.fixture(scope="module", name="logits_NV")
def fake_logits():
    endpoint = FakeEndpoint(vocabulary=160, width=16, seed=3)
    return np.array([endpoint.true_logits(Request(token_ids=(number + 1, 5))) for number in range(64)])


@pytest.fixture(scope="module")
def study(logits_NV):
    words = ("everything", "top-logprobs=5,no-logit-bias", "everything,noise-nats=30,noise=frozen,no-logit-bias")
    return study_defences(logits_NV, [Defence(name=HOSTILE + each, words=each) for each in words], model=HOSTILE)


def test_the_page_is_self_contained_and_hostile_names_stay_text(study):
    html = as_html(study)
    tags, text = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.handle_data = text.append  # type: ignore[method-assign]
    parser.feed(html)
    assert not {"script", "img", "link", "iframe"} & set(tags) and tags.count("svg") == 1
    assert "default-src 'none'" in html and not set("\x1b\u202e") & set(html + as_text(study))
    page = "".join(text)
    for piece in ("<img src=x onerror=alert(1)>", "44 through P1", "no read-out of logits", "not with", *HONEST):
        assert piece in page, piece


def test_each_bar_stands_for_the_queries_of_its_defence(study):
    svg = as_html(study).partition("<svg")[2].partition("</svg>")[0]
    assert svg.count("<rect") == 3
    assert svg.count('class="bar partly"') == 2 and svg.count('class="safe"') == 2


def test_the_json_holds_every_figure(study):
    values = json.loads(json.dumps(as_dict(study), allow_nan=False))
    assert values["width"] == 16 and values["schema_version"] == 1
    first, second, third = values["defences"]
    assert first["cheapest"] == "P1" and first["expose"] == "everything"
    assert {one["read_out"] for one in first["attacks"]} >= {"P1", "P2", "P4a", "P4b", "P5", "P7", "P8"}
    assert second["cheapest"] is None and "ban a word" in second["user"]["refused"]
    assert third["attacks"][0]["width_queries"] is None and third["attacks"][0]["tried"] > 0


def test_a_study_without_a_width_says_so():
    rng = np.random.default_rng(1)
    study = study_defences(rng.normal(0, 3, (40, 64)), [Defence(name="none", words="everything")])
    assert "show no width" in as_html(study) and "no width to show" in as_text(study)


def test_a_file_of_logits_is_studied_and_written(tmp_path, logits_NV):
    np.save(tmp_path / "logits.npy", logits_NV)
    seen = []
    options = DefenceOptions(source=str(tmp_path / "logits.npy"), out=tmp_path / "out", expose=("top-logprobs=3",))
    study = study_source(options, lambda done, total: seen.append((done, total)))
    assert study.width == 16 and study.model == "logits.npy" and seen[-1][0] == seen[-1][1] == len(study.rows)
    assert study.rows[-1].defence.words == "top-logprobs=3"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["defences.html", "defences.json"]


def test_logits_of_an_endpoint_are_its_own(logits_NV):
    endpoint = FakeEndpoint(vocabulary=96, width=16, seed=3)
    told_NV = read_logits(endpoint, 40)
    assert told_NV.shape == (40, 96) and told_NV.dtype == np.float32
    assert np.allclose(np.exp(told_NV).sum(axis=1), 1, atol=1e-5)
    assert len(np.unique(told_NV, axis=0)) == 40
    assert np.array_equal(told_NV, read_logits(FakeEndpoint(vocabulary=96, width=16, seed=3), 40))
    assert np.linalg.matrix_rank(told_NV - told_NV.mean(axis=1, keepdims=True), tol=1e-2) == 16
    with pytest.raises(RefusedError):
        read_logits(FakeEndpoint(vocabulary=96, width=16, exposes=Exposure()), 40)


@pytest.mark.parametrize("content", [b"no array", b"", b"\x93NUMPY\x01\x00"])
def test_what_is_no_file_of_logits_is_refused(tmp_path, content):
    (tmp_path / "logits.npy").write_bytes(content)
    with pytest.raises(InputError, match="not a file of logits"):
        load_logits(tmp_path / "logits.npy")


def test_arrays_of_another_kind_are_refused(tmp_path):
    for name, array in (("one", np.zeros(3)), ("whole", np.zeros((3, 3), dtype=int))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match="holds no logits"):
            load_logits(tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match="no such file"):
        load_logits(tmp_path / "missing.npy")


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(tmp_path):
    (tmp_path / "out").write_text("mine")
    options = DefenceOptions(source=str(tmp_path / "missing.npy"), out=tmp_path / "out")
    with pytest.raises(InputError, match="out is a file"):
        study_source(options)
    assert (tmp_path / "out").read_text() == "mine"


def test_the_command_prints_a_table_or_json(tmp_path, logits_NV):
    app = typer.Typer()
    app.command()(defences)
    np.save(tmp_path / "logits.npy", logits_NV)
    arguments = [str(tmp_path / "logits.npy"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0 and "84" not in result.stdout.splitlines()[0] and "through P1" in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(result.stdout)["width"] == 16
    result = CliRunner().invoke(app, [*arguments, "--expose", "nonsense=1"])
    assert isinstance(result.exception, ConfigError)


def test_a_file_of_logits_needs_no_torch(tmp_path, logits_NV):
    np.save(tmp_path / "logits.npy", logits_NV[:40, :64])
    code = (
        "import sys; from pathlib import Path; from lensmith.workflows.defences.run import *\n"
        f"study_source(DefenceOptions(source={str(tmp_path / 'logits.npy')!r}, out=Path({str(tmp_path)!r})))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_rows_are_logprobs_of_the_same_distribution(logits_NV):
    """Logits up to a constant a row are what the study needs: logprobs of them give the same study."""
    logprobs_NV = log_softmax(logits_NV.astype(np.float64))
    one = study_defences(logits_NV, [Defence(name="x", words="everything,decimals=3")])
    other = study_defences(logprobs_NV, [Defence(name="x", words="everything,decimals=3")])
    assert one.width == other.width == 16
    assert one.rows[0].cheapest.width_queries == other.rows[0].cheapest.width_queries
    exact = study_defences(logprobs_NV.astype(np.float32), [Defence(name="x", words="everything")]).rows[0]
    assert 22 < exact.sharpest.bits < 28, "float32 cannot tell more"
    assert one.rows[0].user.kl_nats == pytest.approx(other.rows[0].user.kl_nats, rel=1e-3)
