"""Batches made ahead: order, bound, errors."""

import threading
import time
from pathlib import Path

import pytest

from lensmith.train import BatchError
from lensmith.train.prefetch import Prefetcher
from tests.support.toy_run import ToyBatch, ToyBatches, curve, toy_config, toy_train


class Places:
    """The batch is where it stands; late ones come sooner than early ones."""

    def __init__(self) -> None:
        self.asked = 0
        self.threads: set[int] = set()

    def batch_at(self, step: int, micro: int) -> tuple[int, int]:
        self.asked += 1
        self.threads.add(threading.get_ident())
        time.sleep(0.003 * ((step * 7 + micro * 3) % 5))
        return step, micro


@pytest.mark.parametrize("threads", [1, 4])
def test_order_and_bound_hold_for_any_number_of_threads(threads: int) -> None:
    batches = Places()
    order = [(step, micro) for step in range(3, 13) for micro in range(2)]
    with Prefetcher(batches, first_step=3, total_steps=13, accumulate=2, ahead=5, threads=threads) as prefetcher:
        for taken, (step, micro) in enumerate(order):
            assert prefetcher.take(step, micro) == (step, micro)
            assert batches.asked <= taken + 1 + 5
    assert batches.asked == len(order)
    assert threading.get_ident() not in batches.threads
    assert len(batches.threads) == threads


def test_batches_are_taken_in_order() -> None:
    with (
        Prefetcher(Places(), first_step=0, total_steps=2, accumulate=1, ahead=2, threads=1) as prefetcher,
        pytest.raises(ValueError, match="in order"),
    ):
        prefetcher.take(1, 0)


def test_threads_do_not_change_the_curve(tmp_path: Path) -> None:
    toy_train(tmp_path / "a", toy_config(prefetch_threads=1, prefetch_batches=1))
    toy_train(tmp_path / "b", toy_config(prefetch_threads=4, prefetch_batches=16))
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_an_error_comes_out_where_its_batch_was_due_and_names_the_step(tmp_path: Path) -> None:
    class Broken(ToyBatches):
        def batch_at(self, step: int, micro: int) -> ToyBatch:
            if (step, micro) == (9, 2):
                raise KeyError("page 17")
            return super().batch_at(step, micro)

    with pytest.raises(BatchError, match=r"update 9 .*micro-batch 2 .*KeyError: 'page 17'") as caught:
        toy_train(tmp_path, toy_config(prefetch_batches=12, prefetch_threads=2), batches=Broken())
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(curve(tmp_path)) == 9
    assert toy_train(tmp_path).result.step == 30  # mended, it goes on


def test_no_thread_outlives_the_run(tmp_path: Path) -> None:
    toy_train(tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lensmith-batches")]
