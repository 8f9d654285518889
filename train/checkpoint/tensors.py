"""What a checkpoint holds: the tensors that decide how a run goes on, by name; no Python object among them.

model, optimiser, guard ─tensors_of─▶ all ─share_of─▶ what this process writes ─Copies─▶ the same in host memory
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from toto.train.parallel import Team

Tensors = dict[str, dict[str, torch.Tensor]]


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, guard: torch.Tensor | None = None
) -> Tensors:
    """The tensors by section and name, as they are: what changes them later changes these."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    if optimizer is None:
        return {"model": parameters}
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in _moments(optimizer, parameter).items():
            state[f"{name}.{key}"] = value
    return {"model": parameters, "optimizer": state, **({} if guard is None else {"guard": {"state": guard}})}


def bytes_of(tensors: Tensors) -> int:
    """Their bytes; of a tensor that is cut among the processes, those of all its pieces."""
    return sum(tensor.nbytes for named in tensors.values() for tensor in named.values())


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its numbers, or those of this process's piece, lie in memory in their order, as readers take them."""
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).is_contiguous()


def share_of(tensors: Tensors, team: Team) -> Tensors:
    """What this process writes: its pieces of tensors that are cut, and one part of those that every process has.

    The parts are consecutive tensors with about the same number of bytes, and together all of them.
    """
    total = sum(t.nbytes for named in tensors.values() for t in named.values() if not isinstance(t, DTensor))
    own: Tensors = {}
    before = 0
    for section, named in tensors.items():
        for name, tensor in named.items():
            if not isinstance(tensor, DTensor):
                writer = before * team.world // total
                before += tensor.nbytes
                if writer != team.rank:
                    continue
            own.setdefault(section, {})[name] = tensor
    return own


class Copies:
    """Copies of tensors in host memory, pinned where they come from a GPU; the next ones take the same places."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], torch.Tensor] = {}

    def take(self, tensors: Tensors) -> tuple[Tensors, Callable[[], None]]:
        """The copies, and what waits until they are complete.

        From a GPU they are queued behind the work that was given to it, and before all that is given to it later, so a
        step that changes the tensors may be asked for at once.
        """
        copies: Tensors = {
            section: {name: self._copy((section, name), tensor) for name, tensor in named.items()}
            for section, named in tensors.items()
        }
        if not any(tensor.is_cuda for named in tensors.values() for tensor in named.values()):
            return copies, lambda: None
        queued = torch.cuda.Event(blocking=True)  # who waits for it sleeps
        queued.record()
        return copies, queued.synchronize

    def _copy(self, key: tuple[str, str], tensor: torch.Tensor) -> torch.Tensor:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if key not in self._places:
            self._places[key] = torch.empty_like(local, device="cpu", pin_memory=local.is_cuda)
        place = self._places[key]
        place.copy_(local, non_blocking=True)
        if not isinstance(tensor, DTensor):
            return place
        return DTensor(place, tensor._spec, requires_grad=False)  # from_local would bring it back to the mesh's GPU


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """AdamW's state of one parameter, made where the first step has not made it yet."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state
