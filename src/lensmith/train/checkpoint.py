"""What a checkpoint holds: enough to resume a run bit for bit. (`folder` makes it whole or absent.)

    OUT/step-000123/            after 123 updates; the next batch is `batch_at(123, 0)`
        model.safetensors       float32 master weights
        average.safetensors     the same with averaged weights, where the run keeps an average: loadable as a model
        optimizer.safetensors   keys `slot/parameter`
        random.json             python's, numpy's and torch's random states
        manifest.json           settings of the run, the machine, and size and SHA-256 of the other files

Nothing is pickled: reading a checkpoint runs no code. The global random states (python's, numpy's, torch's) are seeded
once, saved as JSON, and restored exactly.
"""

import contextlib
import json
import logging
import os
import platform
import random
import re
import shutil
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from lensmith.core import config as core_config
from lensmith.core.errors import CheckpointError
from lensmith.core.files import write_atomic
from lensmith.train import folder as folders
from lensmith.train.config import OPERATIONAL_FIELDS, TrainConfig, resolve
from lensmith.train.folder import Checkpoint
from lensmith.train.interfaces import StorageError
from lensmith.train.optim import WeightAverage
from lensmith.train.processes import ALONE, Processes, is_shared_out, share_of, whole

MODEL_FILE = "model.safetensors"
AVERAGE_FILE = "average.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
RANDOM_FILE = "random.json"

_ABSENT = "(absent)"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The objects whose content a checkpoint holds."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None


# --- the notes: what must be equal on resume, and where bits are promised --------------------------------------------


def notes_of(config: TrainConfig, device: torch.device, identity: Mapping[str, str | int | float]) -> dict[str, Any]:
    """What a run writes into its manifests: its settings by dotted name, its configuration's hash, its machine.

    `precision` is what it resolves to on this device; the caller's `identity` joins under `identity.`.
    """
    settings = dict(_dotted(core_config.to_dict(config), ""))
    settings["precision"] = resolve(config.precision, device).value
    settings |= {f"identity.{name}": value for name, value in identity.items()}
    return {
        "settings": settings,
        "config_hash": core_config.content_hash(config),
        "machine": {
            **({"compiled": True} if config.compile_layers else {}),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
    }


def require_same(checkpoint: Checkpoint, notes: Mapping[str, Any], allow_changes: Set[str]) -> None:
    """Raises CheckpointError that lists every differing setting, unless operational or named in `allow_changes`.

    Another machine is no error, but a warning: results then agree to a tolerance and not bit for bit.
    """
    machine = _differing(checkpoint.notes["machine"], notes["machine"])
    for name, (was, now) in machine.items():
        logger.warning("%s: %s was %r and is %r: equal bits are not promised", checkpoint.path, name, was, now)
    ignored = OPERATIONAL_FIELDS | allow_changes
    settings = _differing(checkpoint.notes["settings"], notes["settings"])
    settings = {name: values for name, values in settings.items() if name not in ignored}
    if settings:
        raise CheckpointError(
            f"{checkpoint.path} belongs to another configuration; {', '.join(settings)} differ",
            expected=", ".join(f"{name}={was!r}" for name, (was, _) in settings.items()),
            actual=", ".join(f"{name}={now!r}" for name, (_, now) in settings.items()),
            hint=f"train into another folder, or, if this is meant, pass allow_changes={set(settings)!r}",
        )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in sorted(old.keys() | new.keys())}
    return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def _dotted(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# --- writing ------------------------------------------------------------------------------------------------------


def save(
    folder: Path,
    state: TrainingState,
    *,
    step: int,
    notes: Mapping[str, Any],
    keep: int,
    processes: Processes = ALONE,
    random_states: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Writes the checkpoint of `step` updates, then removes all but the newest `keep`.

    `random_states` are those of the moment that it stands for, where that is not now. Raises StorageError, in every
    process, where a file cannot be written; older checkpoints are then all there.

    A model that is shared out is gathered, tensor by tensor, and written by the first process: the files are those of
    one process, so a run goes on with any number of them. Returns when they are there.
    """
    weights = _gathered(state.model)
    averages = None
    if state.average is not None:
        with state.average.in_place():
            averages = {name: tensor.clone() for name, tensor in _gathered(state.model).items()}
    tensors = _optimizer_tensors(state.optimizer)
    failure: OSError | None = None
    if processes.is_first:
        try:
            with folders.writing(folder, step=step, notes=notes) as path:
                _save_tensors(weights, path / MODEL_FILE, {"format": "pt"})
                if averages is not None:
                    _save_tensors(averages, path / AVERAGE_FILE, {"format": "pt"})
                _save_tensors(tensors, path / OPTIMIZER_FILE, {"parameters": json.dumps(_names(state.optimizer))})
                write_atomic(path / RANDOM_FILE, json.dumps(random_states or capture()))
            folders.keep_newest(folder, keep)
        except OSError as error:
            failure = error
    if processes.any(failure is not None):  # for the others also the end of waiting
        needed = sum(tensor.nbytes for part in (weights, averages or {}, tensors) for tensor in part.values())
        raise _unwritten(folder, step, needed, failure) from failure
    return Checkpoint(path=folders.checkpoint_path(folder, step), step=step, notes=notes)


def _save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As safetensors does, but with the system's errors as OSError."""
    try:
        save_file(tensors, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _unwritten(folder: Path, step: int, needed: int, failure: OSError | None) -> StorageError:
    if failure is None:
        return StorageError(f"the checkpoint of step {step} was not written; the first process says why")
    try:
        older = folders.newest(folder).checkpoint
        standing = f"the newest whole checkpoint is {older.path}" if older else "there is no older one"
        free = f"{_mib(shutil.disk_usage(folder).free)} free"
    except OSError as error:
        standing, free = "older ones were left alone", f"{folder} cannot be read: {error.strerror}"
    return StorageError(
        f"the checkpoint of step {step} could not be written: {failure.filename or folder}: {failure.strerror}; "
        f"{standing}",
        expected=f"{_mib(needed)} for it, beside those that are kept",
        actual=free,
        hint="make room, and type the same command again: it goes on from the newest checkpoint",
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _gathered(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors by name, whole; what has several names stands under the first, in order."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = whole(tensor.detach()).contiguous()
    return tensors


def _names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _names(optimizer)
    states: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{slot}/{names[index]}": whole(value).contiguous()
        for index, slots in states.items()
        for slot, value in slots.items()
    }


# --- reading ------------------------------------------------------------------------------------------------------


def restore(checkpoint: Checkpoint, state: TrainingState) -> None:
    """Brings model, optimizer, average and random states to where they were. Raises CheckpointError on a misfit.

    Where the run now keeps an average and the checkpoint has none, it begins with the checkpoint's weights.
    """
    if state.average is not None:
        average_file = checkpoint.path / AVERAGE_FILE
        load_weights(state.model, average_file if average_file.exists() else checkpoint.path / MODEL_FILE)
        state.average.take()
    load_weights(state.model, checkpoint.path / MODEL_FILE)
    _restore_optimizer(checkpoint.path / OPTIMIZER_FILE, state.optimizer)
    restore_random_state(json.loads((checkpoint.path / RANDOM_FILE).read_text(encoding="utf-8")))


def load_weights(model: nn.Module, file: str | Path) -> None:
    """Loads a checkpoint's `model.safetensors` or `average.safetensors` into a model of the same structure, in place.

    Raises CheckpointError where names or shapes differ, or the file cannot be read.
    """
    try:
        if is_shared_out(model):
            _load_shares(model, file)
        else:
            load_model(model, file, strict=True)
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"the weights in {file} do not fit the model", actual=error) from error


def _load_shares(model: nn.Module, file: str | Path) -> None:
    """Each process reads all tensors, one after the other, and keeps its share. Raises RuntimeError on a misfit."""
    names: dict[int, list[str]] = {}
    targets = model.state_dict(keep_vars=True)
    for name, tensor in targets.items():
        names.setdefault(id(tensor), []).append(name)
    with safetensors.safe_open(file, framework="pt") as tensors, torch.no_grad():
        held = set(tensors.keys())
        for own in names.values():
            found = [name for name in own if name in held]
            target = targets[own[0]]
            if not found or tuple(tensors.get_slice(found[0]).get_shape()) != tuple(target.shape):
                raise RuntimeError(f"{own[0]} is missing, or has another shape")
            held -= set(found)
            target.copy_(share_of(tensors.get_tensor(found[0]), target))
        if held:
            raise RuntimeError(f"the model has no {', '.join(sorted(held)[:5])}")


def _restore_optimizer(file: Path, optimizer: torch.optim.Optimizer) -> None:
    names = _names(optimizer)
    states: dict[int, dict[str, Tensor]] = {}
    parameters: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with safetensors.safe_open(file, framework="pt") as tensors:
        saved_names = json.loads(tensors.metadata()["parameters"])
        if saved_names != names:
            raise CheckpointError(
                f"{file} belongs to other trainable parameters",
                expected=f"{len(saved_names)} parameters",
                actual=f"{len(names)}, differing in {', '.join(sorted(set(saved_names) ^ set(names))[:5]) or 'order'}",
                hint="freeze the same parts of the model as the run that wrote it",
            )
        index_of = {name: index for index, name in enumerate(names)}
        # A parameter that has never had a gradient has no state yet.
        for key in tensors.keys():  # noqa: SIM118 - not a dict
            slot, name = key.split("/", 1)
            # Copied, because the file's own memory need not be aligned as torch aligns what it allocates.
            value, parameter = tensors.get_tensor(key).clone(), parameters[index_of[name]]
            states.setdefault(index_of[name], {})[slot] = (
                share_of(value, parameter) if value.shape == parameter.shape else value
            )
    # The groups stay the configuration's, so that a change that was allowed on purpose takes effect.
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def seed_everything(seed: int) -> None:
    """Seeds every global random state."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """All global random states as JSON values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": [_to_hex(state) for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def restore_random_state(states: dict[str, Any]) -> None:
    """The reverse of `capture`."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(states["torch"]))
    if states["cuda"]:
        torch.cuda.set_rng_state_all([_from_hex(state) for state in states["cuda"]])


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Whatever draws random numbers inside leaves the global states as they were."""
    states = capture()
    try:
        yield
    finally:
        restore_random_state(states)


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.cpu().numpy()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()
