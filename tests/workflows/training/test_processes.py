"""Several processes train one model: the losses of one, on any number of them; and none goes on when one is lost."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lensmith.core.errors import ConfigError
from lensmith.recipes import recipe_named
from lensmith.train.folder import newest
from lensmith.train.log import read
from lensmith.train.status import RunState, read_status
from lensmith.workflows.training import run_recipe
from tests.support.small_training import write_sources

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [str(ROOT / "tests/support/small_training.py")]
LIMIT_S = 240
STAGED = "deepseek_vl_hybrid_test"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


def run(count, *arguments):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*(torchrun if count > 1 else [sys.executable]), *PROGRAM, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def losses(out):
    return [line["loss"] for line in read(out / "pretraining")]


def trained(count, out, sources, *options, total=6):
    done = run(count, out, sources, total, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return losses(out)


@pytest.fixture(scope="module")
def alone(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    return out, trained(1, out, sources)


def test_two_processes_have_the_losses_of_one(sources, alone, tmp_path):
    # float32: the same sums in another order; the tolerance is that of the first twenty steps.
    assert trained(2, tmp_path / "run", sources) == pytest.approx(alone[1], rel=1e-5)
    plans = [(out / "plan.parquet").read_bytes() for out in (alone[0], tmp_path / "run")]
    assert plans[0] == plans[1]
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_size == (
        alone[0] / "model" / "model.safetensors"
    ).stat().st_size


def test_a_process_that_never_sees_a_picture_neither_hangs_nor_changes_what_is_learnt(sources, tmp_path):
    runs = {count: tmp_path / str(count) for count in (1, 2)}
    for count, out in runs.items():
        trained(count, out, sources, "--apart", total=50)
    one, two = (read(out / "pretraining") for out in runs.values())
    assert len(one) == 50
    # float32, sums in another order; an error of 1e-7 a sum grows over fifty updates.
    for name in ("loss", "grad_norm"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], rel=1e-4), name
    # Part by part, as the norm of all gradients hides those of the tower, which one process has from blanks alone. The
    # files are in bfloat16, so a last bit (1/256) may differ where a sum lay between two numbers.
    # A key's bias moves all of a query's scores alike, which softmax does not see: its gradient is rounding alone.
    weights = [load_file(out / "model" / "model.safetensors") for out in runs.values()]
    apart = {
        name: float((weights[1][name] - tensor).norm() / tensor.norm())
        for name, tensor in weights[0].items()
        if not name.endswith("k_proj.bias")
    }
    assert max(apart.values()) < 1e-3, {name: value for name, value in apart.items() if value >= 1e-3}


def test_experts_are_shared_out_too(sources, tmp_path):
    """Two micro-batches of one process are those of two processes: the same tokens are balanced among themselves."""
    one, two = tmp_path / "1", tmp_path / "2"
    trained(1, one, sources, "--experts", "--accumulate", 2)
    trained(2, two, sources, "--experts")
    lines = [read(out / "pretraining") for out in (one, two)]
    for name in ("loss", "grad_norm"):
        # float32, sums in another order.
        assert [line[name] for line in lines[1]] == pytest.approx([line[name] for line in lines[0]], rel=1e-5), name
    weights = [load_file(out / "model" / "model.safetensors") for out in (one, two)]
    assert "language_model.model.layers.1.mlp.experts.gate" in weights[0]
    assert weights[0].keys() == weights[1].keys()


def staged(count, out, sources, *options):
    done = run(count, out, sources, 0, "--recipe", STAGED, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return {stage.name: [line["loss"] for line in read(out / stage.name)] for stage in recipe_named(STAGED).stages}


@pytest.fixture(scope="module")
def staged_alone(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("staged") / "run"
    return out, staged(1, out, sources)


def test_stages_that_freeze_other_parts_are_the_same_for_two_processes(sources, staged_alone, tmp_path):
    """What was frozen when the model was shared out learns later, in its share too."""
    out, alone = staged_alone
    found = staged(2, tmp_path / "run", sources)
    for stage, losses_alone in alone.items():
        # float32, sums in another order, through sixteen updates in all.
        assert found[stage] == pytest.approx(losses_alone, rel=1e-5), stage
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (out, tmp_path / "run")]
    for name, tensor in weights[0].items():
        # In bfloat16, a last bit (1/256) may differ; a key's bias has a gradient of rounding alone.
        if not name.endswith("k_proj.bias"):
            assert float((weights[1][name] - tensor).norm()) <= 1e-2 * float(tensor.norm()), name


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_a_run_of_stages_goes_on_with_another_number_of_processes(sources, staged_alone, tmp_path, before, after):
    """Stopped within the first stage, then within the second."""
    out = tmp_path / "run"
    done = [run(count, out, sources, 0, "--recipe", STAGED, "--steps", 3) for count in (before, after)]
    assert [one.returncode for one in done] == [0, 0], done[-1].stderr[-2000:]
    found = staged(before, out, sources)
    for stage, losses_alone in staged_alone[1].items():
        assert found[stage] == pytest.approx(losses_alone, rel=1e-5), stage


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 2)])
def test_a_run_goes_on_with_another_number_of_processes(sources, alone, tmp_path, before, after):
    out = tmp_path / "run"
    trained(before, out, sources, "--steps", 3)
    assert trained(after, out, sources) == pytest.approx(alone[1], rel=1e-5)


@pytest.mark.slow
def test_the_same_number_of_processes_has_the_same_bits(sources, tmp_path):
    whole = trained(2, tmp_path / "whole", sources)
    trained(2, tmp_path / "run", sources, "--steps", 2)
    trained(2, tmp_path / "run", sources, "--steps", 1)
    assert trained(2, tmp_path / "run", sources) == whole
    weights = "model/model.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


@pytest.mark.slow
def test_a_process_that_is_lost_ends_all_and_leaves_a_checkpoint(sources, alone, tmp_path):
    out = tmp_path / "run"
    began = time.monotonic()
    done = run(2, out, sources, 6, "--kill-at", 5)
    assert done.returncode != 0
    lost = newest(out / "pretraining").checkpoint
    assert lost is not None and lost.step == 4
    assert re.search(r"another process of this run was lost after step [56]; the newest checkpoint is", done.stderr)
    status = read_status(out / "pretraining")
    assert status.state is RunState.FAILED
    assert "was lost" in status.why
    # Both begin within the time that the first updates take; what is told here is from the start.
    assert time.monotonic() - began < 120
    assert trained(2, out, sources) == pytest.approx(alone[1], rel=1e-5)


def test_a_recipe_for_one_process_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="trained by one process"):
        run_recipe("sightseer_test", tmp_path)


def test_an_environment_that_names_half_of_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match=r"(?s)not all of what joins them.*MASTER_ADDR.*torchrun"):
        run_recipe("mm1_test", tmp_path)


def test_the_log_is_written_by_the_first_alone(alone):
    lines = (alone[0] / "pretraining" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
