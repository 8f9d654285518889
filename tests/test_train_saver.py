"""Checkpoints written beside the training: the same bytes, one at a time, and whatever goes wrong is told."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small_disk import Disk, small_disk  # noqa: F401
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.testing._internal.distributed.fake_pg import FakeStore
from train_toy import trained, world

from toto.config import load
from toto.errors import UserError
from toto.train import checkpoint
from toto.train.checkpoint import saver as savers
from toto.train.checkpoint.saver import FAILED, Saver
from toto.train.checkpoint.tensors import Copies, share_of
from toto.train.parallel import Team

ALONE = Team(0, 1, torch.device("cpu"))
FACTS = {"model": {}, "recipe": {}, "tokenizer": {}}
RECIPE = replace(load().recipe("demo"), checkpoint_async="on", keep_checkpoints=2)


def tensors(value: float = 1.0, size: int = 1000) -> checkpoint.Tensors:
    """What a run would save."""
    return {"model": {"a": torch.full((size,), value), "b": torch.ones(3, 2)}, "optimizer": {"a.step": torch.ones(())}}


def read(folder: Path) -> torch.Tensor:
    there = tensors(0.0)
    checkpoint.load(folder, there)
    return there["model"]["a"]


def contents(run: Path) -> dict[str, bytes]:
    """Every file of every checkpoint."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("step-*/**/*") if path.is_file()}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Checkpoints are written only while `gate.open` is set; `gate.begun` counts those that reached it."""
    found = SimpleNamespace(open=threading.Event(), begun=threading.Semaphore(0))
    save = savers.save

    def slow(*given: object) -> Path:
        found.begun.release()
        assert found.open.wait(200)
        return save(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(savers, "save", slow)
    yield found
    found.open.set()


def test_a_checkpoint_holds_what_was_there_at_its_step(tmp_path: Path, gate: SimpleNamespace) -> None:
    with Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        given = tensors(1.0)
        saver.save(5, given)  # returns, although nothing can be written yet
        given["model"]["a"].fill_(2.0)  # the next step
        assert gate.begun.acquire(timeout=200) and not checkpoint.found(tmp_path)
        gate.open.set()
    (folder,) = checkpoint.found(tmp_path)
    assert folder.name == checkpoint.name_of(5) and torch.equal(read(folder), torch.full((1000,), 1.0))


def test_one_is_on_its_way_at_most_and_retention_holds(tmp_path: Path, gate: SimpleNamespace) -> None:
    with Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors(1.0))
        assert gate.begun.acquire(timeout=200)
        threading.Timer(0.05, gate.open.set).start()
        for step in (2, 3, 4):
            saver.save(step, tensors(float(step)))
            assert checkpoint.found(tmp_path)[-1].name == checkpoint.name_of(step - 1)
    assert [folder.name for folder in checkpoint.found(tmp_path)] == [checkpoint.name_of(step) for step in (3, 4)]
    assert torch.equal(read(checkpoint.found(tmp_path)[0]), torch.full((1000,), 3.0))
    assert not list(tmp_path.glob(".step-*"))


def test_a_full_disk_is_told_at_the_next_step_and_leaves_the_last_good_one(disk: Disk) -> None:
    run = disk.place / "run"
    run.mkdir()
    with pytest.raises(UserError) as caught, Saver(run, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors(size=100_000))
        saver.wait()
        good = contents(run)
        disk.fill(left=100_000)
        saver.save(2, tensors(size=100_000))
        while not saver.failed:
            assert saver._thread is not None
            saver._thread.join(200)
        assert saver.failed == FAILED
        saver.wait()
    assert "the disk is full" in str(caught.value) and str(run / checkpoint.name_of(1)) in str(caught.value)
    assert contents(run) == good and not list(run.glob(".step*"))


def test_an_error_at_the_very_end_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise UserError("no")

    monkeypatch.setattr(savers, "save", refuse)
    with pytest.raises(UserError, match="no"), Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors())
    with pytest.raises(ValueError, match="what happened first"), Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors())
        raise ValueError("what happened first")


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, gate: SimpleNamespace) -> None:
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors())
        assert gate.begun.acquire(timeout=200)
        raise KeyboardInterrupt
    assert not checkpoint.found(tmp_path)


def test_what_another_error_ends_still_has_the_checkpoint_that_was_on_its_way(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="loss"), Saver(tmp_path, RECIPE, FACTS, ALONE) as saver:
        saver.save(1, tensors())
        raise UserError("the loss is nan")
    assert [folder.name for folder in checkpoint.found(tmp_path)] == [checkpoint.name_of(1)]


@dataclass(frozen=True)
class Side(Team):
    """One of two processes, which are threads here; each must ask the other for the same thing at the same time."""

    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=200))
    said: dict[int, Any] = field(default_factory=dict)

    def gathered(self, value: Any) -> list[Any]:
        self.said[self.rank] = ("gathered", value)
        self.meeting.wait()
        told = [self.said[rank] for rank in range(2)]
        self.meeting.wait()
        assert {asked for asked, _ in told} == {"gathered"}, "they wait for one another for ever"
        return [value for _, value in told]

    def wait(self) -> None:
        self.said[self.rank] = ("wait", None)
        self.meeting.wait()
        self.meeting.wait()


def test_a_store_that_refuses_the_first_process_stops_them_all(tmp_path: Path) -> None:
    def refuse(step: int) -> None:
        raise UserError("the store refuses")

    mirror: Any = SimpleNamespace(remove=refuse, newest=None, place=lambda name: f"s3://bucket/run/{name}")
    first = Side(0, 2, torch.device("cpu"))
    sides = [first, replace(first, rank=1, local_rank=1)]
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(checkpoint.save, tmp_path, 1, tensors(), FACTS, side, mirror) for side in sides]
    for end in ends:
        with pytest.raises(UserError, match=r"s3://bucket/run/step-000000001: .*the store refuses"):
            end.result()


def test_copies_of_what_is_cut_among_gpus_stay_in_host_memory() -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = DeviceMesh("cuda", [0, 1], _init_backend=False, _rank=0)
        whole = DTensorSpec(mesh, (Shard(0),), TensorMeta(torch.Size([8]), (1,), torch.float32))
        copies, _ = Copies().take({"model": {"a": DTensor(torch.ones(4), whole, requires_grad=False)}})
    finally:
        dist.destroy_process_group()
    copy = copies["model"]["a"]
    assert isinstance(copy, DTensor) and copy.shape == (8,) and copy.to_local().device.type == "cpu"


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_are_even_and_together_everything(world: int) -> None:
    given: checkpoint.Tensors = {
        "model": {f"{i}": torch.zeros(40 + i % 3) for i in range(60)},
        "optimizer": {f"{i}.step": torch.zeros(()) for i in range(60)},
    }
    shares = [share_of(given, Team(rank, world, torch.device("cpu"))) for rank in range(world)]
    names = [(section, name) for share in shares for section, named in share.items() for name in named]
    assert sorted(names) == sorted((section, name) for section, named in given.items() for name in named)
    sizes = [sum(t.nbytes for named in share.values() for t in named.values()) for share in shares]
    assert max(sizes) - min(sizes) <= 4 * 42 * 2


@pytest.mark.parametrize(("ranks", "sharding"), [(1, "none"), (2, "fsdp")])
def test_a_run_writes_the_same_bytes_beside_the_training_or_not(ranks: int, sharding: str, tmp_path: Path) -> None:
    data = world(tmp_path / "set")
    asked = {"steps": 4, "checkpoint_every": 2, "validate_every": 0, "loader_workers": 0, "sharding": sharding}
    runs = [trained(data, tmp_path / mode, ranks=ranks, checkpoint_async=mode, **asked) for mode in ("off", "on")]
    one, other = map(contents, runs)
    assert len(one) == 2 * (2 + ranks) and one == other
