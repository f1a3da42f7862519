"""`lensmith convert` as a person types it: files, output, exit status."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lensmith.cli.app import app, run
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import tiny_config
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer


@pytest.fixture
def lensmith(monkeypatch, capsys, tmp_path):
    """Runs a command line in this process, in a folder with a tiny model; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    VisionLanguageModel(tiny_config("mlp")).save_pretrained("own")
    tiny_tokenizer().save_pretrained("own")
    capsys.readouterr()

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lensmith", "convert", *arguments])
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def test_there_and_back(lensmith):
    status, out, err = lensmith("own", "a", "--layout", "original")
    assert (status, out.count("\n")) == (0, 1)
    assert "63 tensors" in out
    assert "original layout (was lensmith, family mlp)" in out
    assert "megabytes" in err
    status, out, _ = lensmith("a", "b", "--layout", "transformers", "--json")
    assert status == 0
    result = json.loads(out)
    assert (result["layout"], result["source_layout"], result["tensors"]) == ("transformers", "original", 71)
    assert lensmith("b", "c", "--layout", "lensmith", "--shard-gb", "0.001")[0] == 0
    own, back = (load_file(f"{name}/model.safetensors") for name in ("own", "c"))
    assert own.keys() == back.keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in own.items())


def test_a_folder_is_replaced_only_if_asked(lensmith):
    assert lensmith("own", "a", "--layout", "original")[0] == 0
    status, out, err = lensmith("own", "a", "--layout", "transformers-4")
    assert (status, out) == (2, "")
    assert "not empty" in err
    assert "--overwrite" in err
    assert json.loads(Path("a/config.json").read_text())["model_type"] == "multi_modality"
    assert lensmith("own", "a", "--layout", "transformers-4", "--overwrite")[0] == 0
    assert json.loads(Path("a/config.json").read_text())["model_type"] == "deepseek_vl"


def test_mistakes_are_2_and_say_what_to_do(lensmith):
    for arguments, said in (
        (("own", "a", "--layout", "gguf"), "original, transformers-4, transformers, lensmith"),
        (("none", "a", "--layout", "original"), "no such folder"),
        (("own", "own/in", "--layout", "original"), "lie in each other"),
        (("own", "a"), "--layout"),
    ):
        status, out, err = lensmith(*arguments)
        assert (status, out) == (2, ""), arguments
        assert said in err
        assert "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == ["own"]


def test_a_broken_checkpoint_is_refused_with_all_that_is_wrong(lensmith):
    weights = load_file("own/model.safetensors")
    missing = ["connector.layers.0.bias", "language_model.model.norm.weight"]
    for name in missing:
        del weights[name]
    save_file(weights | {"more": torch.ones(1)}, "own/model.safetensors")
    status, _, err = lensmith("own", "a", "--layout", "original")
    assert status == 2
    assert "2 missing, 1 unexpected" in err
    assert all(f"missing: {name}" in err for name in missing)
    assert "unexpected: more" in err
    assert not Path("a").exists()
