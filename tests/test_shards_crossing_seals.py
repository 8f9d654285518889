"""Two seals at once on a store without locks: the last word is a snapshot that holds the units of both."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fault_proxy import FaultProxy
from object_store import BUCKET, faults, s3, upload  # noqa: F401
from token_world import moving_videos, write_tokens

from toto import Dataset
from toto.shards.commit import COMMITS, committed_units
from toto.shards.manifest import final_results
from toto.shards.seal import DatasetSpec, seal
from toto.shards.snapshot import DATASET
from toto.shards.store import RemoteStore, Store, open_store
from toto.shards.store import retry as store_retry
from toto.shards.verify import verify

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local dataset of three units."""
    return write_tokens(tmp_path_factory.mktemp("world") / "set", moving_videos(3), unit_sources=1)


@pytest.fixture(params=["s3", "memory"])
def store(
    request: pytest.FixtureRequest,
    local: Path,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Store:
    """The dataset in a store with conditional replacement, and in one without; nothing is sealed, one unit is held
    back."""
    monkeypatch.setattr(store_retry, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))
    uri = upload(local, request.node.name)
    if request.param == "memory":
        uri = f"memory://{request.node.name}"
        fsspec.filesystem("memory").put(f"{local}/", f"/{request.node.name}/", recursive=True)
    remote = open_store(uri)
    for name in (DATASET, "quarantine.parquet", "README.md", *remote.list("manifest"), last_commit(local)):
        remote.remove(name)
    return remote


def last_commit(local: Path) -> str:
    return f"{COMMITS}/{max(committed_units(open_store(local)))}.json"


def spec_of(local: Path) -> DatasetSpec:
    """What the plans would say, if a test's dataset had any."""
    info = Dataset(local).info
    units = frozenset(committed_units(open_store(local)))
    return DatasetSpec("world", info["tokenizer"], info["settings"], {}, [], units, 3)


def at(step: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Does something once, when a seal reaches this step."""
    waiting = [act]
    return lambda reached: waiting.pop()() if reached == step and waiting else None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("step", ["before_dataset", "after_dataset"])
def test_a_seal_that_was_overtaken_loses_no_unit(step: str, store: Store, local: Path) -> None:
    def overtake() -> None:
        name = last_commit(local)
        store.write(name, (local / name).read_bytes())
        assert seal(store, lambda: spec_of(local)).value["units"]["committed"] == 3

    sealed = seal(store, lambda: spec_of(local), at(step, overtake))
    assert sealed.value["units"]["committed"] == (3 if step != "after_dataset" else sealed.value["units"]["committed"])
    assert Dataset(store.uri).info["units"]["committed"] == 3
    assert verify(store, deep=True).problems == []


def test_two_seals_of_the_same_units_agree(store: Store, local: Path) -> None:
    mine = spec_of(local)
    other = dataclasses.replace(mine, units=mine.units | {"0" * 16})  # as a run with a newer plan has it: another card
    seal(store, lambda: mine, at("after_card", lambda: seal(store, lambda: other)))
    assert verify(store, deep=True).problems == []


def test_a_seal_that_was_overtaken_by_one_that_died_loses_no_unit(store: Store, local: Path) -> None:
    """The other one lists three units, writes its card first and dataset.json just before ours, and dies."""
    written, go_on = threading.Event(), threading.Event()

    def step(reached: str) -> None:
        if reached == "before_dataset":
            written.set()
            go_on.wait(200)
        if reached == "after_dataset":
            raise SystemExit

    def seal_and_die() -> None:
        with pytest.raises(SystemExit):
            seal(store, lambda: spec_of(local), step)

    other = threading.Thread(target=seal_and_die)

    def mine(reached: str) -> None:
        if reached == "after_manifest" and not written.is_set():
            name = last_commit(local)
            store.write(name, (local / name).read_bytes())
            other.start()
            assert written.wait(200)
        if reached == "before_dataset":
            go_on.set()
            other.join()

    assert seal(store, lambda: spec_of(local), mine).value["units"]["committed"] == 3
    assert verify(store, deep=True).problems == []


@pytest.mark.parametrize("store", ["s3"], indirect=True)  # memory has no conditional replacement
def test_dataset_json_is_replaced_only_where_it_is_what_was_read(
    store: Store,
    local: Path,
    faults: FaultProxy,  # noqa: F811
) -> None:
    seal(store, lambda: spec_of(local))
    assert isinstance(store, RemoteStore)
    version, before = store.version(DATASET), store.read(DATASET)
    assert version
    store.write(DATASET, before + b" ")
    assert not store.replace(DATASET, b"older", version) and store.read(DATASET) == before + b" "


def test_a_remote_dataset_reads_as_the_local_one(
    store: Store,
    local: Path,
    faults: FaultProxy,  # noqa: F811
) -> None:
    name = last_commit(local)
    store.write(name, (local / name).read_bytes())
    seal(store, lambda: spec_of(local))
    faults.share = 0.05
    mine, theirs = Dataset(store.uri), Dataset(local)
    assert len(mine) == len(theirs) == 3
    for i in range(3):
        assert (mine.row(i).record.tokens == theirs.row(i).record.tokens).all()
    assert final_results([mine.sources()]).equals(final_results([theirs.sources()]))
