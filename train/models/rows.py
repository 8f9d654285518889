"""Products in which a row's bits do not depend on the rows beside it, so that a clip does not depend on its batch.

torch's own do: MKL multiplies one to three rows by other kernels than more of them, and shares rows among threads in
pieces. `least_rows` finds out, on the matrices themselves, from how many rows on that is over; fewer are filled up.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 16  # whose bits other numbers of rows must have
TRIED = (*range(1, ROWS), 33, 100)

Functions = Iterable[tuple[nn.Module, str, Callable[..., Any]]]  # of a module, by the name of what they stand for


class Product:
    """x -> x M + b."""

    def __init__(self, matrix_KN: Tensor, bias: Tensor | None, least: int | None) -> None:
        self._matrix, self._bias, self._least = matrix_KN, None if bias is None else bias.detach(), least

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).contiguous()  # one clip's may lie by columns, and have other bits then
        made = one_by_one(rows, self._matrix) if self._least is None else self._filled(rows)
        if self._bias is not None:
            made = made + self._bias
        return made.view(*x.shape[:-1], -1)

    def _filled(self, rows_NK: Tensor) -> Tensor:
        return torch.mm(filled(rows_NK, self._least or 1), self._matrix)[: len(rows_NK)]


def filled(x_NK: Tensor, least: int) -> Tensor:
    """At least so many rows: the given ones, then they again."""
    return x_NK if len(x_NK) >= least else torch.cat([x_NK] * -(-least // len(x_NK)))


def one_by_one(x_NK: Tensor, matrix_KN: Tensor) -> Tensor:
    """The product of each row by itself: slow, and right on any processor."""
    return torch.bmm(x_NK[:, None], matrix_KN.expand(len(x_NK), -1, -1))[:, 0]


def least_rows(matrices: Iterable[Tensor]) -> int | None:
    """`least_of` of torch's own products by `matrices` [K, N], of which one of each shape and layout is tried."""
    least = 1
    for matrix in {(each.shape, each.stride()): each for each in matrices}.values():
        found = least_of(partial(torch.mm, mat2=matrix), len(matrix), matrix)
        if found is None:
            return None
        least = max(least, found)
    return least


@torch.no_grad()
def least_of(product: Callable[[Tensor], Tensor], width: int, like: Tensor) -> int | None:
    """From how many rows [n, width] on a row's bits are those that it has among 16, here and with these threads.

    Rows are of the dtype of `like`. None where bits depend on more than the number of rows.
    """
    x = torch.randn(max(TRIED), width, generator=torch.Generator().manual_seed(0)).to(like)
    among = product(x[:ROWS])
    differ = [n for n in TRIED if not torch.equal(product(x[:n])[:ROWS], among[:n])]
    if differ and differ[-1] > ROWS:
        return None
    return max((n + 1 for n in differ), default=1)


@contextmanager
def standing_in(functions: Functions) -> Iterator[None]:
    """Functions stand for methods of modules, `forward` say; afterwards the modules are as before."""
    owners = []
    try:
        for module, name, function in functions:
            vars(module)[name] = function
            owners.append((module, name))
        yield
    finally:
        for module, name in owners:
            vars(module).pop(name, None)
