"""The processes of a run: one, or those that `torchrun` started, which hold the model in shares (torch's FSDP2).

Each transformer layer is a unit whose weights are gathered when it runs, and let go; gradients are summed over ranks,
never averaged, since a step divides once by all target tokens (`optim.scale_and_clip`). Every rank does the same calls
in the same order: what one of them decides alone, such as to stop, is agreed on first.

Random numbers: the first rank's states are those of a run of one process; the others are seeded apart from it.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from lensmith.core.errors import ConfigError
from lensmith.train.layers import layers_of

Result = TypeVar("Result")

DATA = "data"
"""The dimension of the mesh along which batches differ and weights are shared out."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which of how many this process is. `mesh` None: it is alone, and nothing is shared out."""

    rank: int = 0
    count: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes, logs and shows progress."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        if self.mesh is None or self.mesh.device_type != "cuda":
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def shard(self, model: nn.Module) -> None:
        """Shares the model's weights out, in place: its layers one by one, then what is left. Once is enough."""
        if self.mesh is None or is_shared_out(model):
            return
        for module in (*layers_of(model), model):
            unit = fully_shard(module, mesh=self.mesh)
            assert isinstance(unit, FSDPModule)
            # On CPUs gloo has no scaled sums; and this loop wants plain ones.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)

    def summed(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        if self.mesh is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.mesh.device_type)
        dist.all_reduce(total)
        return total.tolist()

    def any(self, wanted: bool) -> bool:
        """Whether at least one process wants it."""
        return self.summed([float(wanted)])[0] > 0

    def first_then_all(self, work: Callable[[], Result]) -> Result:
        """Does work in the first process, and then in the others, who find what it has written."""
        if self.mesh is None:
            return work()
        if self.is_first:
            result = work()
        dist.barrier()
        return result if self.is_first else work()

    def barrier(self) -> None:
        """Waits for all."""
        if self.mesh is not None:
            dist.barrier()


ALONE = Processes()


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes that `torchrun` started this one with, or `ALONE`; left in order.

    Raises ConfigError where the environment names a rank but not how to reach the others.
    """
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    if missing := [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise ConfigError(
            "the environment names several processes, but not all of what joins them",
            expected=", ".join(missing),
            hint="start with torchrun --nproc-per-node N -m lensmith.cli train RECIPE",
        )
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    count = int(os.environ["WORLD_SIZE"])
    mesh = init_device_mesh(kind, (count,), mesh_dim_names=(DATA,))
    try:
        yield Processes(rank=dist.get_rank(), count=count, mesh=mesh)
        # Who leaves early would break off what the others are still sending.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that is shared out, in every process; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, shared out as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    placed = tensor.to(like.device)
    # Each process has read all of it: nothing need be sent.
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def is_shared_out(model: nn.Module) -> bool:
    """Whether a model's weights are."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def local(tensors: Sequence[Any]) -> list[Tensor]:
    """What of each tensor lies in this process, as a view."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
