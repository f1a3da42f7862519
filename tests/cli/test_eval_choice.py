"""`lensmith eval choice` as a person types it: output, files, exit status; every number with its mode."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from lensmith.cli.app import app, run
from tests.support.tiny_vlm import tiny_chat_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    model, processor = tiny_chat_model()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    AutoModelForCausalLM.from_config(model.config.language).save_pretrained(folder.parent / "text")
    processor.tokenizer.save_pretrained(folder.parent / "text")
    return folder


@pytest.fixture
def lensmith(monkeypatch, capsys, tmp_path):
    """Runs a command line in this process, in a folder with a picture; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save("p.png")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lensmith", "eval", "choice", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def write(*changes, name="q.jsonl"):
    good = {"question": "What?", "options": ["a dog", "a cat"], "answer": "B", "picture": "p.png"}
    lines = [change if isinstance(change, str) else json.dumps(good | change) for change in changes]
    Path(name).write_text("\n".join(lines) + "\n")


MODES = [
    ("likelihood, letter", ()),
    ("likelihood, option", ("--normalise", "option")),
    ("likelihood, sum", ("--normalise", "sum")),
    ("generation", ("--mode", "generation", "--max-new-tokens", "2")),
    ("likelihood, letter, circular", ("--circular",)),
]


@pytest.mark.parametrize(("label", "options"), MODES, ids=[label for label, _ in MODES])
def test_every_number_has_its_mode(lensmith, model_folder, label, options):
    write({"id": "1", "category": "x"}, {"id": "2"}, {"id": "3", "options": ["p", "q", "r"]})
    status, out, err = lensmith("q.jsonl", "--model", model_folder, "--out", "r.jsonl", *options)
    assert status == 0, err
    assert f"q.jsonl, tiny [{label}]: accuracy " in out
    assert all(label.split(",")[0] in line for line in out.splitlines())
    mode, _, rest = label.partition(", ")
    status, out, _ = lensmith("q.jsonl", "--model", model_folder, "--out", "r.jsonl", "--json", *options)
    told = json.loads(out)
    assert (told["mode"], told["circular"], told["accuracy"]["n"]) == (mode, "circular" in label, 3)
    assert told["normalise"] == (rest.split(",")[0] or None)
    for record in map(json.loads, Path("r.jsonl").read_text().splitlines()):
        assert record["mode"] == mode


def test_bad_lines_are_listed_and_the_status_says_so(lensmith, model_folder):
    write({"id": "1"}, '{"question": ', {"id": "1"}, {"picture": "nowhere.png"}, {"answer": ""}, {"id": "2"})
    Path("broken.png").write_bytes(Path("p.png").read_bytes()[:90])
    with Path("q.jsonl").open("a") as file:
        file.write(json.dumps({"question": "?", "options": ["a", "b"], "answer": 0, "picture": "broken.png"}) + "\n")
    status, out, err = lensmith("q.jsonl", "--model", model_folder)
    assert status == 2
    assert "(0 of 2)" in out or "(1 of 2)" in out or "(2 of 2)" in out
    for line, problem in ((2, "not JSON"), (3, "its id '1'"), (4, "not there"), (5, "no right"), (7, "broken")):
        assert any(f"line {line}: " in told and problem in told for told in out.splitlines()), (line, out)
    assert "Traceback" not in err
    status, out, err = lensmith("q.jsonl", "--model", "there/is/no/such/model", "--strict")
    assert (status, out) == (2, "")
    assert "line 2: not JSON" in err  # told before a model is looked for


def test_the_same_command_goes_on_and_another_is_refused(lensmith, model_folder):
    write({"id": "1"}, {"id": "2"})
    assert lensmith("q.jsonl", "--model", model_folder, "--out", "r.jsonl")[0] == 0
    before = Path("r.jsonl").read_bytes()
    status, _, _ = lensmith("q.jsonl", "--model", model_folder, "--out", "r.jsonl")
    assert (status, Path("r.jsonl").read_bytes()) == (0, before)
    write({"id": "1"}, {"id": "2"}, {"id": "3"}, name="other.jsonl")
    for arguments in (
        ("q.jsonl", "--model", model_folder, "--normalise", "sum"),
        ("q.jsonl", "--model", model_folder, "--mode", "generation"),
        ("q.jsonl", "--model", model_folder, "--circular"),
        ("q.jsonl", "--model", model_folder, "--dtype", "bfloat16"),
        ("other.jsonl", "--model", model_folder),
    ):
        status, _, err = lensmith(*arguments, "--out", "r.jsonl")
        assert status == 2
        assert "something else" in err
        assert Path("r.jsonl").read_bytes() == before


def test_a_text_model_answers_questions_without_pictures(lensmith, model_folder):
    text = model_folder.parent / "text"
    write({"id": "1"}, {"id": "2"})
    status, _, err = lensmith("q.jsonl", "--model", text)
    assert status == 2
    assert "reads none" in err
    Path("t.tsv").write_text("index\tquestion\tA\tB\tanswer\n1\tWhat?\tx\ty\tA\n")
    status, out, err = lensmith("t.tsv", "--model", text)
    assert status == 0, err
    assert "t.tsv, text [likelihood, letter]" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.jsonl",), "no such file of questions"),
        (("q.jsonl", "--mode", "generation", "--normalise", "sum"), "generation compares no likelihoods"),
        (("q.jsonl", "--max-new-tokens", "4"), "likelihood writes no answer"),
        (("empty.jsonl",), "no question can be evaluated"),
        (("q.jsonl", "--mode", "guess"), "guess"),
        (("q.jsonl", "--device", "nowhere"), "nowhere"),
    ],
)
def test_what_makes_no_sense_is_told_and_not_traced(lensmith, model_folder, arguments, told):
    write({"id": "1"})
    Path("empty.jsonl").write_text("\n")
    status, _, err = lensmith(*arguments, "--model", model_folder)
    assert status == 2
    assert told in err
    assert "Traceback" not in err
