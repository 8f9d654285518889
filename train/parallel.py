"""One process, or one of many that `torchrun` started: the same code, and the same numbers, either way.

    with joined() as team:  ->  team.rank of team.world; sums and agreements over all of them

Gradients are averaged by DistributedDataParallel, where every process holds the whole model; or (`fsdp`) weights,
gradients and moments are cut among the processes by FSDP2, and gathered block by block. CPU tensors go through gloo,
GPU tensors through NCCL.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from toto.errors import UserError
from toto.lazy import cached_property
from toto.train.hardware import choose_device, use_cores
from toto.train.meeting import meet, store_of_torchrun
from toto.train.models import LanguageModel

PATIENCE = timedelta(hours=1)  # until what is written beside the training, by the slowest process, is given up


@dataclass(frozen=True)
class Team:
    """All processes of a run, as one of them sees it."""

    rank: int
    world: int
    device: torch.device
    local_rank: int = 0  # its number on this machine
    group: dist.ProcessGroup | None = None  # through which they talk; None: as the training does

    @property
    def is_first(self) -> bool:
        """True for the one process that logs and publishes."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """True for one process of each machine."""
        return self.local_rank == 0

    def aside(self) -> "Team":
        """The same processes for a thread beside the training: what they say does not get mixed up."""
        if self.world == 1:
            return self
        return replace(self, group=dist.new_group(backend="gloo", timeout=PATIENCE))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def agree(self, number: int) -> int:
        """The largest number that any process says."""
        if self.world == 1:
            return number
        said = torch.tensor([number])
        dist.all_reduce(said, dist.ReduceOp.MAX, self.group)
        return int(said)

    def wait(self) -> None:
        """Returns when every process is here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1), group=self.group)  # over gloo: a barrier of NCCL would need the GPU

    def gathered(self, value: Any) -> list[Any]:
        """What every process says, in their order."""
        if self.world == 1:
            return [value]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, value, group=self.group)
        return said

    def shard(self, model: LanguageModel, precision: str) -> None:
        """Cuts the weights among the processes, in place; nothing happens where there is one.

        The root holds the table, which is the head too: both uses are in its forward pass, where it is whole.
        """
        if self.world == 1:
            return
        half = torch.bfloat16 if precision == "bf16" and model.gathers_half else None
        # Inputs stay as they are: the angles of positions are fp32, and autocast sees to the rest.
        policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for part in (*model.blocks, model):
            fully_shard(part, mesh=self._mesh, mp_policy=policy)

    def cut_again(self, model: nn.Module) -> None:
        """Cuts what a forward pass without a backward one left whole: the root's weights."""
        if isinstance(model, FSDPModule):
            model.reshard()

    def beside(self, number: torch.Tensor, model: nn.Module) -> torch.Tensor:
        """A number that is the same on every process, as an optimiser of this model's weights takes it."""
        if isinstance(next(model.parameters()), DTensor):
            return DTensor.from_local(number, self._mesh, [Replicate()])
        return number

    @cached_property
    def _mesh(self) -> DeviceMesh:
        return init_device_mesh(self.device.type, (self.world,))

    def spread(self, model: nn.Module) -> nn.Module:
        """The model with gradients averaged over the processes; the model itself where there is one, or it is cut."""
        if self.world == 1 or isinstance(model, FSDPModule):
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)


def without_averaging(model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
    """Gradients of a micro-batch that is not its step's last stay local."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not wanted)
    return model.no_sync() if wanted and isinstance(model, DistributedDataParallel) else nullcontext()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be cut among the processes, gathered."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def joined(device: str = "auto") -> Iterator[Team]:
    """The team of this process: what torchrun's variables say, else this process alone.

    A group that a launcher has made already, as Ray Train does, is taken and left to it. UserError when another
    process of the team is gone.
    """
    rank, world, local_rank = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    use_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    chosen = choose_device(device, local_rank)
    if world <= 1:
        yield Team(0, 1, chosen)
        return
    own = not dist.is_initialized()
    try:
        if own:
            _join(rank, world, "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
        yield Team(dist.get_rank(), world, chosen, local_rank)
    except BaseException as error:
        # What the error's frames hold, such as a DistributedDataParallel, must go before its process group does:
        # freed after it, the two wait for one another now and then.
        traceback.clear_frames(error.__traceback__)
        if _of_a_lost_process(error):
            raise UserError(
                f"rank {rank}: another process of this run is gone; what was saved is kept\n"
                "torchrun --max-restarts goes on by itself, else run the same command again"
            ) from error
        raise
    finally:
        if own and dist.is_initialized():
            dist.destroy_process_group()


def _join(rank: int, world: int, backend: str) -> None:
    store = store_of_torchrun()
    if store is None:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=meet(store, rank, world), rank=rank, world_size=world)


def _of_a_lost_process(error: BaseException | None) -> bool:
    """Whether a process that is gone is behind an error: gloo says so in words only."""
    while error is not None:
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower()):
            return True
        error = error.__context__
    return False
