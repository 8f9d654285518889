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
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.parallel import DistributedDataParallel

from toto.lazy import cached_property
from toto.train.hardware import choose_device, use_cores
from toto.train.models import LanguageModel


@dataclass(frozen=True)
class Team:
    """All processes of a run, as one of them sees it."""

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True for the one process that logs and publishes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def agree(self, number: int) -> int:
        """The largest number that any process says."""
        if self.world == 1:
            return number
        said = torch.tensor([number])
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return int(said)

    def wait(self) -> None:
        """Returns when every process is here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1))  # over gloo: a barrier of NCCL would need the GPU

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
    """The team of this process: what torchrun's variables say, else this process alone."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    use_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    chosen = choose_device(device, local_rank)
    if world == 1:
        yield Team(0, 1, chosen)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), world, chosen)
    except BaseException as error:
        # What the error's frames hold, such as a DistributedDataParallel, must go before its process group does:
        # freed after it, the two wait for one another now and then.
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        dist.destroy_process_group()
