"""The loss of every position from the states before the head, without the logits of all of them at once.

    chunk of states [n, D] ─table─▶ logits [n, V] ─▶ losses [n]; softmax - target ─▶ gradients of states and table

Where gradients will be asked for, they are made in the same pass, for a weight of 1 a position: the logits of a chunk
are there then, and computing them again would take a third of the head's time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from toto.train.models.products import multiply

IGNORED = -100  # a target that costs nothing


def head_losses(x_ND: Tensor, table_VD: Tensor, targets: Tensor, used_ids: int, chunk_tokens: int) -> Tensor:
    """Nats, fp32, of N int64 targets in any shape, by logits x · table over its first `used_ids` rows; 0 for a target
    of -100.

    Products are in the dtype of `x_ND`, softmax and losses in fp32. Gradients of gradients are not there. What is
    returned is no view: FSDP2 warns of a model that returns one.
    """
    return _HeadLosses.apply(x_ND, table_VD, targets, used_ids, chunk_tokens, torch.is_grad_enabled())


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, table_VD: Tensor, targets: Tensor, used_ids: int, chunk_tokens: int, learns: bool
    ) -> Tensor:
        ctx.used_ids, ctx.chunk_tokens = used_ids, chunk_tokens
        losses = torch.empty(targets.shape, dtype=torch.float32, device=x_ND.device)
        losses_N, targets_N = losses.view(-1), targets.flatten()
        table = table_VD.to(x_ND.dtype)
        of_x = torch.empty_like(x_ND) if learns else None
        of_table = torch.zeros_like(table_VD, dtype=torch.float32) if learns else None
        for part in _parts(len(x_ND), chunk_tokens):
            losses_N[part], powers, sums = _losses(x_ND[part], table, targets_N[part], used_ids)
            if of_x is not None and of_table is not None:
                wrong = _wrong(powers, sums, targets_N[part]).to(x_ND.dtype)
                multiply(wrong, table, out=of_x[part])
                _add_product(of_table, wrong, x_ND[part])
        if learns:
            ctx.save_for_backward(x_ND, table_VD, targets_N, of_x, of_table)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, table_VD, targets_N, of_x, of_table = ctx.saved_tensors
        given_N = given.flatten()
        if given_N.stride() == (0,):  # one weight for all positions, as that of a sum or a mean
            of_table = of_table * given_N[:1]
        else:
            of_table = _table_gradient(x_ND, table_VD.to(x_ND.dtype), targets_N, given_N, ctx)
        return (of_x * given_N[:, None]).to(x_ND.dtype), of_table.to(table_VD.dtype), None, None, None, None


def _table_gradient(x_ND: Tensor, table: Tensor, targets_N: Tensor, weights_N: Tensor, ctx: Any) -> Tensor:
    """fp32 [V, D] for a weight of its own for every position."""
    found = torch.zeros_like(table, dtype=torch.float32)
    for part in _parts(len(x_ND), ctx.chunk_tokens):
        _, powers, sums = _losses(x_ND[part], table, targets_N[part], ctx.used_ids)
        wrong = _wrong(powers, sums, targets_N[part]).mul_(weights_N[part, None])
        _add_product(found, wrong.to(x_ND.dtype), x_ND[part])
    return found


def _parts(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def _losses(x: Tensor, table: Tensor, targets: Tensor, used_ids: int) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [n], e^(logit - largest logit) fp32 [n, V] with 0 for rows that are no id, and their sums [n, 1]."""
    logits = multiply(x, table.t()).float()
    logits[:, used_ids:] = -torch.inf
    largest = logits.amax(1, keepdim=True)
    aimed = logits.gather(1, _places(targets)) - largest
    powers = logits.sub_(largest).exp_()
    sums = powers.sum(1, keepdim=True)
    return (sums.log() - aimed).squeeze(1).masked_fill_(targets == IGNORED, 0.0), powers, sums


def _wrong(powers: Tensor, sums: Tensor, targets: Tensor) -> Tensor:
    """The loss's gradient by the logits, softmax - target, in the memory of `powers`."""
    found = powers.div_(sums)
    found.scatter_add_(1, _places(targets), torch.full_like(sums, -1.0))
    return found.masked_fill_((targets == IGNORED)[:, None], 0.0)


def _places(targets: Tensor) -> Tensor:
    return targets.clamp(min=0)[:, None]


def _add_product(sums: Tensor, wrong: Tensor, x: Tensor) -> None:
    """sums [V, D] += wrongᵀ x, in fp32."""
    if x.dtype == torch.float32:
        sums.addmm_(wrong.t(), x)
    else:
        sums += multiply(wrong.t(), x)
