"""Tensors into a network whose size was read off them: nothing is allocated before every shape fits."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from toto.errors import UserError

Net = TypeVar("Net", bound=nn.Module)


def filled(make: Callable[[], Net], tensors: Mapping[str, Tensor]) -> Net:
    """The network with these tensors as its parameters, for inference; UserError when one is missing or misshapen."""
    try:
        with torch.device("meta"):
            net = make()
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(f"weights: no network has such tensors ({type(error).__name__}: {error})") from None
    shapes = {name: tuple(parameter.shape) for name, parameter in net.state_dict().items()}
    for name in sorted(shapes.keys() | tensors.keys()):
        given = tuple(tensors[name].shape) if name in tensors else None
        if given != shapes.get(name):
            raise UserError(f"weights: {name} has shape {given}, {shapes.get(name)} is needed; these are other weights")
    net.load_state_dict(tensors, assign=True)
    return net.eval().requires_grad_(False)
