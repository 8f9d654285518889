"""A step of training puts work into the queue of a GPU and waits for nothing of it: numbers are read with the log."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from train_toy import SHAPES, USED

from toto.config import load
from toto.train.data import MicroBatch
from toto.train.loop import one_step
from toto.train.models import make_model
from toto.train.optimizer import make_optimizer
from toto.train.parallel import Team
from toto.train.spikes import SpikeGuard

CPU, CONTEXT = torch.device("cpu"), 31
READ_BY_THE_HOST = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal.default",
    "unique",
)  # of a tensor's numbers


class Operators(TorchDispatchMode):
    """Names of all that torch computes, in the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


class Moves(TorchFunctionMode):
    """What happens to the tensors of a batch: which of them go to a device, and how."""

    def __init__(self, batch: list[torch.Tensor]) -> None:
        super().__init__()
        self._batch = batch
        self.waited: list[bool] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("to", "cuda", "cpu") and any(args[0] is each for each in self._batch):
            self.waited.append(not kwargs.get("non_blocking"))
        return func(*args, **kwargs)


@pytest.mark.parametrize(("precision", "recompute"), [("fp32", False), ("bf16", True)])
@pytest.mark.parametrize("arch", sorted(SHAPES))
def test_a_step_reads_no_number_and_waits_for_no_batch(arch: str, precision: str, recompute: bool) -> None:
    recipe = replace(load().recipe("demo"), precision=precision)
    model = make_model(SHAPES[arch], USED, 0, recompute)
    optimizer, guard = make_optimizer(model, recipe), SpikeGuard(6.0, CPU)
    stream = SimpleNamespace(batch_sequences=4, parts=("one", "other"))
    job: Any = SimpleNamespace(stream=stream, facts={"context": CONTEXT}, recipe=recipe)
    tokens = torch.randint(4, USED, (2, 2, CONTEXT + 2)).to(torch.uint16).unbind()
    parts = torch.tensor([[0, 1], [1, 0]]).unbind()

    def batches() -> Iterator[MicroBatch]:
        for i in range(2):
            yield MicroBatch(0, tokens[i], parts[i], 1, first=i == 0, last=i == 1, predict_end=False)

    before = model.table.weight.clone()
    with Operators() as operators, Moves([*tokens, *parts]) as moves:
        one_step(model, optimizer, guard, batches(), 0, 1e-3, job, Team(0, 1, CPU))
    assert not torch.equal(before, model.table.weight), "there was a step"
    assert [name for name in operators.names if any(read in name for read in READ_BY_THE_HOST)] == []
    assert moves.waited == [False] * 4
