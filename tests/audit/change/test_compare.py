"""What happened between two snapshots, for changes that were made on purpose."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.change.compare import Change, Snapshot, compare, load_snapshot, save_snapshot
from lensmith.core.errors import InputError, ShapeError
from tests.support.last_layers import PRECISIONS, SPECTRA, Norm, make_layer, told

WIDTH, VOCABULARY = 48, 400


def _snapshot(outputs, *, contexts=None, **parts):
    names = tuple(map(str, range(len(outputs)))) if contexts is None else contexts
    return Snapshot(outputs_NM=outputs, contexts=names, **({"token_ids_M": np.arange(outputs.shape[1])} | parts))


class _Bed:
    """A layer, the same with changes, and outputs before and after them."""

    def __init__(self, *, spectrum="moderate", norm=Norm.RMS, precision="float32", contexts=150, seed=1):
        self.rng = np.random.default_rng(seed)
        self.layer = make_layer(WIDTH, VOCABULARY, spectrum=spectrum, norm=norm, seed=seed)
        self.states = self.layer.normed(contexts, self.rng)
        self.other = make_layer(WIDTH, VOCABULARY, spectrum=spectrum, norm=norm, seed=seed + 100)
        self.precision = precision
        self.before = _snapshot(self.told(self.layer, self.states))

    def told(self, layer, states):
        return told(layer.logits_of(states, self.rng), self.precision)

    def prompted(self):
        """Hidden states that a prompt moves, all of them in one direction too."""
        moved = 0.8 * self.states + 0.6 * self.layer.normed(len(self.states), self.rng)
        moved += 0.4 * self.rng.standard_normal(WIDTH)
        if self.layer.norm.centres:
            moved -= moved.mean(axis=1, keepdims=True)
        return moved / np.sqrt((moved**2).mean(axis=1, keepdims=True))

    def adapted(self, rank, size=0.3):
        left, right = self.rng.standard_normal((VOCABULARY, rank)), self.rng.standard_normal((rank, WIDTH))
        return replace(self.layer, head_VH=self.layer.head_VH + size * left @ right / np.sqrt(WIDTH))

    def after(self, layer, states):
        return _snapshot(self.told(layer, states))

    def outcomes(self):
        """What was done, and what is said of it."""
        nudged = self.layer.head_VH + 0.1 * self.rng.standard_normal((VOCABULARY, WIDTH))
        done = {
            Change.SAME: (self.layer, self.states),
            Change.HIDDEN_PROMPT_OR_BELOW_HEAD: (self.layer, self.prompted()),
            8: (self.adapted(8), self.states),
            1: (self.adapted(1), self.prompted()),
            Change.ANOTHER_MODEL: (self.other, self.other.normed(len(self.states), self.rng)),
            "whole head": (replace(self.layer, head_VH=nudged), self.states),
        }
        return {name: compare(self.before, self.after(*change)) for name, change in done.items()}


def _is_right(done, said):
    if isinstance(done, int):
        low, high = said.rank_interval or (0, 0)
        return said.change is Change.LOW_RANK_CHANGE and low <= done <= high and said.rank in {None, done}
    return said.change is (Change.ANOTHER_MODEL if done == "whole head" else done)


def _grid(beds):
    counts: Counter = Counter()
    for bed in beds:
        for done, said in bed.outcomes().items():
            if said.change is Change.COULD_NOT_TELL:
                counts["could not tell"] += 1
                assert said.reason
                assert said.needs
            else:
                counts["right"] += 1
                assert _is_right(done, said), (done, said)
            counts["exact rank"] += isinstance(done, int) and said.rank == done
    print(dict(counts))  # noqa: T201  # what was left open is part of the result
    return counts


def test_every_change_is_told_over_spectra():
    counts = _grid([_Bed(spectrum=spectrum) for spectrum in SPECTRA])
    assert counts["right"] == 6 * 4
    assert counts["exact rank"] >= 6


def test_every_change_is_told_or_left_open_over_precisions():
    counts = _grid([_Bed(precision=precision) for precision in PRECISIONS])
    assert counts["right"] >= 6 * 5 - 4
    assert counts["exact rank"] >= 6


@pytest.mark.slow
def test_every_change_is_told_or_left_open_over_everything():
    counts = _grid(
        _Bed(spectrum=spectrum, norm=norm, precision=precision, contexts=contexts, seed=seed)
        for seed, contexts in ((1, 70), (2, 100), (3, 200))
        for spectrum in SPECTRA
        for norm in Norm
        for precision in PRECISIONS
    )
    assert counts["right"] > 0.85 * sum(counts[name] for name in ("right", "could not tell"))


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_the_rank_of_a_change_is_exact_from_few_new_contexts(rank):
    bed = _Bed()
    few = bed.after(bed.adapted(rank), bed.prompted()[: rank + 16])
    found = compare(bed.before, few)
    assert (found.change, found.rank) == (Change.LOW_RANK_CHANGE, rank)


def test_as_many_directions_as_contexts_leave_it_open():
    bed = _Bed()
    found = compare(bed.before, bed.after(bed.adapted(20, size=0.02), bed.states[:20]))
    assert found.change is Change.COULD_NOT_TELL
    assert found.needs.contexts > 20


def test_noise_that_repeats_explain_is_no_change_and_unexplained_noise_is_left_open():
    bed = _Bed()
    outputs = bed.before.outputs_NM
    moved = bed.told(bed.layer, bed.states + 2e-6 * bed.rng.standard_normal(bed.states.shape))
    assert compare(bed.before, _snapshot(moved)).change in {Change.SAME, Change.COULD_NOT_TELL}
    difference = float(np.sqrt(((moved - outputs) ** 2).mean()))
    before, after = replace(bed.before, repeat_nats=difference), _snapshot(moved, repeat_nats=difference)
    assert compare(before, after).change is Change.SAME


def test_outputs_without_an_image_are_the_same_or_left_open():
    rng = np.random.default_rng(0)
    noise = told(3 * rng.standard_normal((60, 90)))
    assert compare(_snapshot(noise), _snapshot(noise)).change is Change.SAME
    found = compare(_snapshot(noise), _snapshot(told(3 * rng.standard_normal((60, 90)))))
    assert found.change is Change.COULD_NOT_TELL
    assert found.needs


def test_too_much_noise_is_left_open_or_told_rightly():
    bed = _Bed()
    noisy = _snapshot(bed.before.outputs_NM + 0.5 * bed.rng.standard_normal(bed.before.outputs_NM.shape))
    for done, (layer, states) in {8: (bed.adapted(8), bed.states), 0: (bed.layer, bed.prompted())}.items():
        outputs = bed.told(layer, states)
        found = compare(noisy, _snapshot(outputs + 0.5 * bed.rng.standard_normal(outputs.shape)))
        assert found.change is Change.COULD_NOT_TELL or (done and _is_right(done, found)), found


def test_only_shared_tokens_and_contexts_count():
    bed = _Bed()
    outputs, order = bed.before.outputs_NM, np.random.default_rng(0).permutation(VOCABULARY)[:300]
    names = tuple(str(number) for number in range(149, -1, -1))
    turned = _snapshot(outputs[::-1][:, order], contexts=names, token_ids_M=order)
    assert compare(bed.before, turned).change is Change.SAME
    strangers = _snapshot(bed.told(bed.layer, bed.prompted()), contexts=tuple(f"new {n}" for n in range(150)))
    found = compare(bed.before, strangers)
    assert found.change is Change.HIDDEN_PROMPT_OR_BELOW_HEAD
    assert found.difference_nats is None
    apart = _snapshot(outputs, token_ids_M=np.arange(VOCABULARY) + 10**6)
    assert compare(bed.before, apart).change is Change.COULD_NOT_TELL


def test_missing_values_change_nothing():
    bed = _Bed()
    outputs = bed.told(bed.adapted(3), bed.states)
    outputs[np.random.default_rng(0).random(outputs.shape) < 1e-4] = np.nan
    found = compare(bed.before, _snapshot(outputs))
    assert (found.change, found.rank) == (Change.LOW_RANK_CHANGE, 3)


def test_snapshots_are_saved_and_loaded(tmp_path):
    bed = _Bed()
    path = tmp_path / "before.npz"
    saved = replace(bed.before, repeat_nats=0.25)
    assert len(save_snapshot(saved, path)) == 64
    loaded = load_snapshot(path)
    assert loaded.contexts == saved.contexts
    assert loaded.repeat_nats == 0.25
    assert np.array_equal(loaded.outputs_NM, saved.outputs_NM.astype(np.float32))
    save_snapshot(bed.before, path)
    assert load_snapshot(path).repeat_nats is None
    assert compare(load_snapshot(path), bed.after(bed.layer, bed.states)).change is Change.SAME
    content = path.read_bytes()
    for damaged in (b"", content[:500], content[:900] + b"\x00\x01" + content[902:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="no snapshot"):
            load_snapshot(path)


def test_snapshots_that_contradict_themselves_are_refused():
    with pytest.raises(ShapeError):
        _snapshot(np.zeros((3, 4)), contexts=("a", "b"))
    with pytest.raises(InputError):
        _snapshot(np.zeros((2, 4)), contexts=("a", "a"))
    with pytest.raises(InputError):
        _snapshot(np.zeros((2, 2)), token_ids_M=np.array([5, 5]))
