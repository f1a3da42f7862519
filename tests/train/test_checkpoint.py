"""Checkpoints: damage is found and survived, other configurations are refused, one process writes at a time."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lensmith.core.errors import CheckpointError, InputError
from lensmith.core.files import lock
from lensmith.train import OptimConfig, Precision, load_weights, newest
from lensmith.train.loop import LOCK_FILE
from tests.support.toy_run import ToyModel, curve, same_bits, toy_config, toy_train

FILES = ["model.safetensors", "average.safetensors", "optimizer.safetensors", "random.json", "manifest.json"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the checkpoints of steps 21, 28 and 30."""
    torch.set_num_threads(1)  # made before the test's own fixtures, such as `one_thread`
    folder = tmp_path_factory.mktemp("finished")
    toy_train(folder, toy_config(keep_checkpoints=3))
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


DAMAGES = {"flip": flip_a_bit, "cut": cut_short, "lose": Path.unlink, "empty": lambda file: file.write_bytes(b"")}


def test_a_checkpoint_holds_what_it_says(finished: Path) -> None:
    folder = finished / "step-000030"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    notes = json.loads((folder / "manifest.json").read_text())["notes"]
    assert notes["settings"]["schedule.total_steps"] == 30
    assert notes["settings"]["precision"] == "float32"
    assert len(notes["config_hash"]) == 64
    assert notes["machine"]["threads"] == 1
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {(finished / "log.jsonl").stat().st_mode & 0o777}  # not just its owner may read it


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_found(run_folder: Path, name: str, damage: str) -> None:
    DAMAGES[damage](run_folder / "step-000030" / name)
    found = newest(run_folder)
    assert found.checkpoint is not None
    assert found.checkpoint.step == 28
    assert list(found.damaged) == [run_folder / "step-000030"]
    assert name in found.damaged[run_folder / "step-000030"]


def test_a_run_goes_back_past_damaged_checkpoints_loudly(
    finished: Path, run_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip_a_bit(run_folder / "step-000030" / "model.safetensors")
    cut_short(run_folder / "step-000028" / "random.json")
    with caplog.at_level(logging.WARNING):
        run = toy_train(run_folder, toy_config(keep_checkpoints=3))
    text = caplog.text
    assert "step-000030" in text
    assert "model.safetensors has another SHA-256" in text
    assert "random.json has" in text
    assert f"going back to {run_folder / 'step-000021'}" in text
    assert run.result.step == 30
    assert curve(run_folder) == curve(finished)
    reference = ToyModel()
    load_weights(reference, finished / "step-000030" / "model.safetensors")
    assert same_bits(run.model, reference)
    folders = sorted(path.name for path in run_folder.glob("step-*"))
    assert folders == ["step-000021", "step-000028", "step-000028.damaged", "step-000030", "step-000030.damaged"]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(run_folder: Path) -> None:
    for folder in run_folder.glob("step-*"):
        flip_a_bit(folder / "optimizer.safetensors")
    with pytest.raises(CheckpointError, match=r"every checkpoint .* is damaged") as caught:
        toy_train(run_folder)
    assert "step-000021" in str(caught.value)
    assert len(list(run_folder.glob("step-??????"))) == 3  # nothing was moved


def test_another_configuration_is_refused_with_every_difference(run_folder: Path) -> None:
    config = toy_config(optim=OptimConfig(peak_lr=2e-2, weight_decay=0.1), seed=7, precision=Precision.BFLOAT16)
    with pytest.raises(CheckpointError) as caught:
        toy_train(run_folder, config, identity={"data": "abc"}, allow_changes={"seed"})
    message = str(caught.value)
    for name in ("optim.peak_lr", "optim.weight_decay", "precision", "identity.data"):
        assert name in message
    assert "optim.peak_lr=0.01" in caught.value.expected
    assert "optim.peak_lr=0.02" in caught.value.actual
    assert "seed" not in message
    assert "optim.betas" not in message


def test_what_changes_no_number_may_differ(run_folder: Path) -> None:
    config = toy_config(
        keep_checkpoints=1, log_every_steps=3, validate_every_steps=2, deadline_s=60.0, prefetch_threads=3
    )
    assert toy_train(run_folder, config).result.step == 30


def test_an_allowed_change_takes_effect(run_folder: Path) -> None:
    shutil.rmtree(run_folder / "step-000030")
    config = toy_config(optim=OptimConfig(peak_lr=0.5))
    toy_train(run_folder, config, allow_changes={"optim.peak_lr"})
    lines = curve(run_folder)
    assert lines[27]["lr"] < 0.01
    assert lines[29]["lr"] == pytest.approx(0.025)


def test_an_average_can_be_begun_later(tmp_path: Path) -> None:
    toy_train(tmp_path, toy_config(ema_decay=None))
    assert not (tmp_path / "step-000030" / "average.safetensors").exists()
    shutil.rmtree(tmp_path / "step-000030")
    toy_train(tmp_path, toy_config(), allow_changes={"ema_decay"})
    assert (tmp_path / "step-000030" / "average.safetensors").exists()


def test_another_model_is_refused(run_folder: Path) -> None:
    model = ToyModel()
    model.extra = torch.nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match=r"do not fit the model(.|\n)*extra"):
        toy_train(run_folder, model=model)


def test_other_frozen_parts_are_refused(run_folder: Path) -> None:
    model = ToyModel()
    model.hidden.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"other trainable parameters(.|\n)*hidden\.bias, hidden\.weight"):
        toy_train(run_folder, toy_config(ema_decay=None), model=model, allow_changes={"ema_decay"})


def test_another_thread_count_is_a_warning(run_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.set_num_threads(2)
    with caplog.at_level(logging.WARNING):
        toy_train(run_folder)
    assert "threads was 1 and is 2: equal bits are not promised" in caplog.text


def test_two_processes_cannot_train_into_one_folder(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("a") as file:
        lock(file.fileno(), tmp_path)
        with pytest.raises(InputError, match="another run is writing here"):
            toy_train(tmp_path)
    assert toy_train(tmp_path).result.step == 30


def test_leftovers_of_a_killed_save_are_swept(tmp_path: Path) -> None:
    leftover = tmp_path / ".unfinished-14"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"torn")
    toy_train(tmp_path)
    assert not leftover.exists()


def test_a_parameter_that_never_had_a_gradient_resumes(tmp_path: Path) -> None:
    def model_with_idle_part() -> ToyModel:
        model = ToyModel()
        model.idle = torch.nn.Linear(3, 3)
        return model

    first = toy_train(tmp_path, toy_config(ema_decay=None), model=model_with_idle_part())
    second = toy_train(tmp_path, toy_config(ema_decay=None), model=model_with_idle_part())
    assert first.result.step == second.result.step == 30


def test_weights_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_weights(ToyModel(), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError):
        load_weights(ToyModel(), tmp_path / "nowhere.safetensors")
