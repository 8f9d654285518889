"""A run kept in a bucket: the same run as in a folder, on any machine, whatever the store and kills do."""

import json
import os
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner, Result
from fault_proxy import FaultProxy
from object_store import BUCKET, faults, s3, upload, variables  # noqa: F401
from train_toy import Command, batches, command_line, meeting, steps, world

from toto.errors import UserError
from toto.shards.hashing import json_sha256
from toto.shards.store import owner
from toto.train import checkpoint
from toto.train.alone import alone
from toto.train.checkpoint.fetch import copied
from toto.train.checkpoint.mirror import Mirror
from toto.train.cli import cli
from toto.train.load import load_model

STATE = ("state/.metadata", "state/__0_0.distcp")
TOY = {"steps": 8, "checkpoint_every": 2, "keep_checkpoints": 2, "validate_every": 4, "loader_workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module")
def local(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in a folder."""
    run = tmp_path_factory.mktemp("local") / "run"
    assert train(data, run).exit_code == 0
    return run


@pytest.fixture(autouse=True)
def quick_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SETTLE_S", 0.0), ("LOOK_S", 0.05), ("WATCH_S", 0.4), ("BEAT_S", 0.1)):
        monkeypatch.setattr(owner, name, seconds)


@pytest.fixture(name="proxy")
def store_behind_a_proxy(faults: FaultProxy) -> FaultProxy:  # noqa: F811
    return faults


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caches of a machine that has seen nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "machine" / "shards"))
    monkeypatch.setenv("TOTO_RUNS", str(tmp_path / "runs"))
    return tmp_path / "machine"


def train(data: Path, out: Path | str, *more: str, **changed: object) -> Result:
    words = command_line(data, Path("out"), *more, **{**TOY, **changed})
    words[words.index("--out") + 1] = str(out)
    return CliRunner().invoke(cli, words, standalone_mode=False)


def there(uri: str) -> set[str]:
    """The files of a run in the bucket."""
    files, top = fsspec.filesystem("s3"), uri.removeprefix("s3://")
    files.invalidate_cache()
    return {name.removeprefix(f"{top}/") for name in files.find(top)}


def names(*found: int) -> set[str]:
    return {f"{checkpoint.name_of(n)}/{file}" for n in found for file in ("checkpoint.json", *STATE)}


def assert_same(uri: str, local: Path) -> None:
    """The bucket holds the run of a folder: the log, and the newest checkpoint, byte for byte."""
    mirror = Mirror(uri)
    with copied(uri) as (folder, _):
        newest = checkpoint.resolve(local)
        assert folder.name == newest.name
        assert all((folder / name).read_bytes() == (newest / name).read_bytes() for name in STATE)
    log = mirror.folder.parent / "log"
    log.mkdir(parents=True, exist_ok=True)
    (log / "metrics.jsonl").write_bytes(mirror.store.read("metrics.jsonl"))
    assert steps(log) == steps(local)


def test_a_run_in_a_bucket_is_the_run_of_a_folder(data: Path, local: Path, machine: Path, proxy: FaultProxy) -> None:
    uri = f"s3://{BUCKET}/whole"
    proxy.requests.clear()
    done = train(data, uri, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["checkpoint"] == f"{uri}/{checkpoint.name_of(8)}"
    assert_same(uri, local)
    kept = {name for name in there(uri) if not name.startswith("tensorboard/")}
    assert kept == {"run.json", "recipe.json", "metrics.jsonl"} | names(6, 8)  # and no lock
    deleted = [path.split("/")[-1] for method, path in proxy.requests if method == "DELETE" and "step-" in path]
    assert deleted == ["checkpoint.json", *(Path(name).name for name in STATE)] * 2
    again = train(data, uri)
    assert again.exit_code == 0 and "nothing left to do" in again.output


def test_it_goes_on_on_another_machine(
    data: Path, local: Path, machine: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/moves"
    for number, stop in enumerate((3, 5, 8)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(machine / str(number)))
        assert train(data, uri, "--stop-at", str(stop)).exit_code == 0
    assert_same(uri, local)
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "0"))  # the first one still holds what it had
    assert "nothing left to do" in train(data, uri).output


def test_it_ends_the_same_on_a_store_that_fails(data: Path, local: Path, machine: Path, proxy: FaultProxy) -> None:
    proxy.share = 0.1
    done = train(data, f"s3://{BUCKET}/faults")
    proxy.share = 0.0
    assert done.exit_code == 0, (done.output, done.exception)
    assert sum(proxy.met.values()) > 3
    assert_same(f"s3://{BUCKET}/faults", local)


def test_killed_while_it_uploads_it_goes_on_elsewhere(
    data: Path, local: Path, machine: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    uri = f"s3://{BUCKET}/killed"
    words = command_line(data, Path("out"), **TOY)
    words[words.index("--out") + 1] = uri
    extra = {**variables(proxy.address), "XDG_CACHE_HOME": str(tmp_path / "first")}
    proxy.once.append(("PUT", f"{checkpoint.name_of(4)}/state/__0_0", "held"))
    command = Command(words, tmp_path / "child", **extra)
    while proxy.once and command.process.is_alive():
        time.sleep(0.002)
    os.kill(command.pid, signal.SIGKILL)
    assert command.ended().code == -signal.SIGKILL
    assert owner.LOCK in there(uri)
    done = train(data, uri)
    assert done.exit_code == 0, (done.output, done.exception)
    assert_same(uri, local)
    assert {name for name in there(uri) if "step-" in name} == names(6, 8)


def test_damage_is_told_and_the_run_goes_on_from_the_one_before(
    data: Path, local: Path, machine: Path, proxy: FaultProxy
) -> None:
    uri, files = f"s3://{BUCKET}/damaged", fsspec.filesystem("s3")
    assert train(data, uri, "--stop-at", "6").exit_code == 0
    newest = f"{uri}/{checkpoint.name_of(6)}"
    shutil.rmtree(machine)
    files.pipe_file(f"{newest}/state/__0_0.distcp", b"other bytes")
    told = str(train(data, uri).exception)
    assert f"{newest}/state/__0_0.distcp" in told and f"remove {newest}" in told and len(told.splitlines()) == 1
    files.rm(f"{newest}/state/__0_0.distcp")
    assert f"{newest}/state/__0_0.distcp is missing" in str(train(data, uri).exception)
    with pytest.raises(UserError, match="is missing"):
        load_model(uri)
    files.rm(newest, recursive=True)
    assert train(data, uri).exit_code == 0
    assert_same(uri, local)


def test_two_runs_do_not_write_to_one_place(
    data: Path, machine: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/twice"
    monkeypatch.setattr(owner, "WATCH_S", 60)  # however late a beat comes here
    mirror = Mirror(uri)
    with mirror.held():
        assert "another --out" in str(train(data, uri).exception)
        assert there(uri) == {owner.LOCK}
    assert train(data, uri, "--stop-at", "2").exit_code == 0


def test_a_run_whose_lock_was_taken_over_writes_nothing_more(
    data: Path, machine: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{BUCKET}/taken"
    push, pushed = Mirror.push, []

    def taken(mirror: Mirror) -> None:
        push(mirror)
        pushed.append(there(uri))
        if len(pushed) == 2:  # with the checkpoint of step 2
            while not mirror._held.lost:  # type: ignore[union-attr]
                mirror.store.write(owner.LOCK, json.dumps({"owner": "other-1", "beat": 7}).encode())
                time.sleep(0.05)

    monkeypatch.setattr(Mirror, "push", taken)
    told = str(train(data, uri, checkpoint_async="off").exception)
    assert "the run other-1 is going on" in told and "another --out" in told
    assert {name for name in there(uri) if "step-" in name} <= names(2)


def test_a_checkpoint_in_a_bucket_is_a_model(local: Path, data: Path, machine: Path, proxy: FaultProxy) -> None:
    uri = upload(local, "shared/run")
    mine, theirs = load_model(local), load_model(uri)
    assert theirs.place == f"{uri}/{checkpoint.name_of(8)}" and theirs.id == mine.id
    assert theirs.path == Path(os.environ["TOTO_RUNS"]) / "run" / checkpoint.name_of(8)
    assert load_model(f"{uri}/{checkpoint.name_of(6)}").step == 6
    assert all((a == b).all() for a, b in zip(mine.model.parameters(), theirs.model.parameters(), strict=True))
    done = CliRunner().invoke(cli, ["loss-by-position", "--ckpt", uri, "--json"], standalone_mode=False)
    assert done.exit_code == 0, (done.output, done.exception)
    assert json.loads(done.stdout.splitlines()[-1])["checkpoint"] == theirs.place
    assert (theirs.path.parent / "loss" / theirs.path.name / "loss_by_position.json").is_file()
    assert not list((machine / "toto" / "checkpoints").iterdir())
    with pytest.raises(UserError, match="no checkpoint and no run"):
        load_model(f"s3://{BUCKET}/shared/nothing")


@pytest.mark.parametrize(
    "files", [{"../../escaped": "0" * 64}, {"..": "0" * 64}, {"a/b": "0" * 64}, {"a": "../../../x"}, {"a": None}]
)
def test_a_strangers_checkpoint_writes_nowhere_else(files: dict, local: Path, machine: Path, proxy: FaultProxy) -> None:
    facts = json.loads((checkpoint.resolve(local) / "checkpoint.json").read_text()) | {"files": files}
    del facts["hash"]
    uri = f"s3://{BUCKET}/stranger"
    value = json.dumps({**facts, "hash": json_sha256(facts)}).encode()
    fsspec.filesystem("s3").pipe_file(f"{uri}/checkpoint.json", value)
    with pytest.raises(UserError, match="files missing or not what it must be"):
        load_model(uri)
    assert not [path for path in machine.rglob("*") if path.is_file()]


def test_working_folders_that_no_run_uses_any_more_are_removed(machine: Path, proxy: FaultProxy) -> None:
    mirror = Mirror(f"s3://{BUCKET}/fresh")
    folders = [mirror.folder.with_name(name) for name in ("unused", "used", "held", mirror.folder.name)]
    for folder in folders:
        folder.mkdir(parents=True)
    fork = get_context("fork")
    told, ended = fork.Event(), fork.Event()

    def hold() -> None:
        with alone(folders[2]):
            told.set()
            ended.wait()

    holder = fork.Process(target=hold, daemon=True)
    holder.start()
    told.wait()
    for folder, days in zip(folders, (8, 6, 8, 8), strict=True):
        os.utime(folder, (time.time() - days * 86_400,) * 2)
    mirror.pull(("run.json",))
    ended.set()
    holder.join()
    assert set(mirror.folder.parent.iterdir()) == set(folders[1:])


def test_no_more_is_fetched_than_a_strangers_checkpoint_tells(
    local: Path, machine: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, files = upload(checkpoint.resolve(local), "endless/step"), fsspec.filesystem("s3")
    state = f"{uri}/{STATE[1]}"
    size = files.size(state)
    files.pipe_file(state, bytes(size + 1))
    with pytest.raises(UserError, match=f"{size + 1:,} bytes, where {size:,} are the most"):
        load_model(uri)
    monkeypatch.setattr("toto.train.checkpoint.fetch.FACTS_BYTES", 100)
    with pytest.raises(UserError, match=r"checkpoint\.json has .* where 100 are the most"):
        load_model(uri)


def test_the_log_goes_there_without_what_is_unfinished_or_gone(
    machine: Path, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(f"s3://{BUCKET}/pushed")
    for name in ("log", "samples/.a.png.1234.partial", "samples/a.png", "samples/b.png"):
        path = mirror.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    copy = shutil.copyfile

    def racing(source: Path, target: Path) -> Path:
        (mirror.folder / "samples/b.png").unlink(missing_ok=True)  # the training goes on meanwhile
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", racing)
    mirror.push()
    assert there(f"s3://{BUCKET}/pushed") == {"log", "samples/a.png"}
    assert not list((machine / "toto" / "tmp").iterdir())


def test_two_machines_train_one_run_without_a_folder_in_common(
    data: Path, local: Path, machine: Path, proxy: FaultProxy, tmp_path: Path
) -> None:
    uri = f"s3://{BUCKET}/machines"
    words = command_line(data, Path("out"), **{**TOY, "checkpoint_every": 4})
    words[words.index("--out") + 1] = uri
    for stop in ("4", "8"):
        place = meeting()
        commands = [
            Command(
                [*words, "--stop-at", stop],
                tmp_path / f"rank{rank}",
                WORLD_SIZE="2",
                RANK=str(rank),
                LOCAL_RANK="0",
                LOCAL_WORLD_SIZE="1",
                XDG_CACHE_HOME=str(tmp_path / f"machine{rank}"),
                **place,
                **variables(proxy.address),
            )
            for rank in range(2)
        ]
        for command in commands:
            ended = command.ended()
            assert ended.code == 0, ended.stderr
    assert {name for name in there(uri) if "step-" in name} == {
        *names(4, 8),
        *(f"{checkpoint.name_of(n)}/state/__1_0.distcp" for n in (4, 8)),
    }
    log = tmp_path / "log"
    log.mkdir()
    (log / "metrics.jsonl").write_bytes(Mirror(uri).store.read("metrics.jsonl"))
    assert batches(log) == batches(local)
    loaded, alone = load_model(uri), load_model(local)
    assert all(
        abs(a - b).max() < 1e-4 for a, b in zip(loaded.model.parameters(), alone.model.parameters(), strict=True)
    )
