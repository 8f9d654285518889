"""Checkpoints: whole or not at all, every damage found, nothing of a stranger's executed."""

import errno
import json
import os
import pickle
import resource
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
import torch
from small_disk import Disk, small_disk  # noqa: F401
from torch.distributed.checkpoint import FileSystemWriter

from toto.config import ModelConfig, load
from toto.errors import UserError
from toto.shards.hashing import file_sha256, json_sha256
from toto.train import checkpoint
from toto.train.load import load_model
from toto.train.models.llama import Llama
from toto.train.optimizer import make_optimizer
from toto.train.parallel import Team

MODEL = ModelConfig(name="test", dim=16, layers=2, heads=2, mlp_hidden=32)
ALONE = Team(0, 1, torch.device("cpu"))
TOKENIZER = {"name": "dct", "id": "0" * 64, "vocab_size": 60, "patch": 8}
FACTS = {
    "model": vars(MODEL),
    "training": {},
    "recipe": {
        "format": 1,
        "parts": [{"name": "a", "uri": "/a", "dataset_id": "0" * 64, "split": "train", "kind": "video"}],
        "phases": [{"from_sequence": 0, "weights": [1]}],
        **{"seed": 0, "frames": 2, "stride": None, "hop": 2, "images_per_sequence": 2, "batch_sequences": 1},
        "grid": [4, 4],
    },
    "tokenizer": TOKENIZER,
    "used_ids": 64,
    "context": 32,
    "frames": 2,
    "stride": None,
    "grid": [4, 4],
}


def trained(seed: int = 0) -> tuple[Llama, torch.optim.Optimizer]:
    """A model and its optimiser after one step."""
    model = Llama(MODEL, 64, seed=seed)
    optimizer = make_optimizer(model, load().recipe("demo"))
    ids = torch.randint(4, 64, (2, 9), generator=torch.Generator().manual_seed(seed))
    model(ids[:, :-1], ids[:, 1:]).mean().backward()
    optimizer.step()
    return model, optimizer


def save(run: Path, step: int, seed: int = 0) -> Path:
    return checkpoint.save(run, step, checkpoint.tensors_of(*trained(seed)), FACTS, ALONE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that nobody changes."""
    return save(tmp_path_factory.mktemp("saved"), 1)


def one_line(call, *arguments) -> str:
    """The message of the UserError that a call ends in."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert 1 <= len(message.splitlines()) <= 2 and "Traceback" not in message
    return message


def test_weights_and_moments_come_back_bit_for_bit(tmp_path: Path) -> None:
    folder = save(tmp_path, 7)
    assert folder.name == "step-000000007"
    model, optimizer = trained(seed=1)
    tensors = checkpoint.tensors_of(model, optimizer)
    checkpoint.load(folder, tensors)
    expected = checkpoint.tensors_of(*trained())
    for section, values in expected.items():
        assert values.keys() == tensors[section].keys() and len(values) > 10
        assert all(torch.equal(values[name], tensors[section][name]) for name in values)


def test_a_torch_that_keeps_to_itself_where_tensors_lie_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of 2.11 does: it completes a copy of the metadata that it returns."""
    right = FileSystemWriter.finish
    usual = checkpoint.read_facts(save(tmp_path / "usual", 1))
    monkeypatch.setattr(FileSystemWriter, "finish", lambda self, found, results: right(self, replace(found), results))
    assert checkpoint.read_facts(save(tmp_path / "older", 1)) == usual


def test_a_checkpoint_alone_is_enough_to_load_its_model(tmp_path: Path) -> None:
    save(tmp_path / "run", 3)
    loaded = load_model(tmp_path / "run")  # a run means its newest checkpoint
    shutil.copytree(loaded.path, tmp_path / "elsewhere")
    other = load_model(tmp_path / "elsewhere")
    ids = torch.arange(4, 20)[None]
    assert torch.equal(loaded.model(ids), trained()[0](ids)) and torch.equal(loaded.model(ids), other.model(ids))
    assert (other.step, other.grid, other.used_ids) == (3, (4, 4), 64)
    assert loaded.id == other.id and not any(p.requires_grad for p in other.model.parameters())


def test_other_weights_have_another_id(tmp_path: Path) -> None:
    ids = {load_model(save(tmp_path / str(seed), 1, seed)).id for seed in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_of_any_file_is_found_and_named(tmp_path: Path, damage: str) -> None:
    folder = save(tmp_path, 1)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert {path.name for path in files} == {"checkpoint.json", ".metadata", "__0_0.distcp"}
    for path in files:
        whole = path.read_bytes()
        if damage == "remove":
            path.unlink()
        else:
            middle = len(whole) // 2
            changed = bytes([whole[middle] ^ 4]) if damage == "flip" else b""
            path.write_bytes(whole[:middle] + changed + whole[middle + 1 :] * (damage == "flip"))
        assert str(folder) in one_line(load_model, folder)
        path.write_bytes(whole)
    load_model(folder)


def test_what_is_no_checkpoint_is_said_so(tmp_path: Path) -> None:
    assert "no checkpoint" in one_line(load_model, tmp_path)
    assert "no checkpoint" in one_line(load_model, tmp_path / "nowhere")
    (tmp_path / "checkpoint.json").write_text('{"format": 99}')
    assert "format 1" in one_line(load_model, tmp_path)
    (tmp_path / "checkpoint.json").write_text("not json")
    assert "damaged" in one_line(load_model, tmp_path)


class Malice:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"format": 1, "a": "\\ud800"}', b'{"format": 1, "a": 1e999}', b'{"format": 1}']
)
def test_facts_that_no_toto_wrote_are_damage(text: bytes, tmp_path: Path) -> None:
    (tmp_path / checkpoint.FACTS).write_bytes(text)
    assert "damaged" in one_line(load_model, tmp_path)


def test_only_names_that_toto_gives_are_checkpoints(tmp_path: Path) -> None:
    for name in ("step-000000002", "step-0000000000003", "step-٠٠٠٠٠٠٠٠٤", "step-" + "9" * 200):
        (tmp_path / name).mkdir()
        (tmp_path / name / checkpoint.FACTS).touch()
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-000000002"]


def test_a_strangers_pickle_is_not_executed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / "state" / ".metadata").write_bytes(pickle.dumps(Malice(tmp_path / "executed")))
    rehash(folder)
    load_model(folder)  # .metadata is never opened
    tensors = folder / "state" / "__0_0.distcp"
    tensors.write_bytes(pickle.dumps(Malice(tmp_path / "executed")))
    rehash(folder)
    one_line(load_model, folder)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("how", ["deflated", "more", "fewer", "beyond"])
def test_numbers_that_could_become_anything_are_refused(tmp_path: Path, how: str) -> None:
    folder = save(tmp_path, 1)
    facts = json.loads((folder / "checkpoint.json").read_text())
    state = folder / "state" / "__0_0.distcp"
    entry = facts["tensors"]["model.norm.weight"]
    ((_, _, _, first, length),) = entry["chunks"]
    with ZipFile(BytesIO(state.read_bytes()[first : first + length])) as there:
        members = {member.filename: there.read(member) for member in there.infolist()}
    (numbers,) = [name for name in members if name.endswith("/data/0")]
    size = len(members[numbers])
    members[numbers] = {"deflated": bytes(size), "more": bytes(1 << 20), "fewer": bytes(size - 4)}.get(how, bytes(size))
    made = BytesIO()
    with ZipFile(made, "w", ZIP_DEFLATED if how == "deflated" else ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        header = archive.getinfo(numbers).header_offset
    data = bytearray(made.getvalue())
    if how == "beyond":  # by its own header they begin eight bytes before the end
        data[header + 28 : header + 30] = (len(data) - 8 - header - 30 - len(numbers)).to_bytes(2, "little")
    entry["chunks"][0][3:] = [state.stat().st_size, len(data)]
    state.write_bytes(state.read_bytes() + data)
    rehash(folder, facts)
    assert "norm.weight" in one_line(load_model, folder)


@pytest.mark.parametrize(
    "change",
    [
        {"chunks": [[[0, 0], [128, 16], "../../../secret", 0, 100]]},
        {"chunks": [[[0, 0], [128, 16], "/etc/passwd", 0, 100]]},
        {"chunks": [[[0, 0], [128, 16], "__0_0.distcp", 10**12, 100]]},
        {"chunks": "no list"},
        {"dtype": "object"},
        {"size": [1, 2, 3]},
    ],
)
def test_tensors_that_a_stranger_describes_stay_in_their_folder(tmp_path: Path, change: dict) -> None:
    folder = save(tmp_path, 1)
    facts = json.loads((folder / "checkpoint.json").read_text())
    facts["tensors"]["model.table.weight"] |= change
    rehash(folder, facts)
    assert str(folder) in one_line(load_model, folder)


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": None},
        {"files": []},
        {"model": {}},
        {"model": {"dim": "x"}},
        {"model": {**vars(MODEL), "heads": 0}},
        {"model": {**vars(MODEL), "dim": 1 << 20, "layers": 1 << 20}},  # no memory holds it
        *({"model": {**vars(MODEL), "layers": layers}} for layers in (0, -1, True, "2", 2.0, 10**6, None)),
        *({"model": {**vars(MODEL), **wrong}} for wrong in ({"rope_theta": 0}, {"norm_eps": 1e308}, {"heads": 5})),
        *({"model": {**vars(MODEL), **wrong}} for wrong in ({"name": "../x"}, {"arch": []}, {"more": 1})),
        *({"grid": grid} for grid in ([], [4], [4, 4, 4], [0, 4], [-4, -4], [30_000, 30_000], "ab", 4)),
        *({"frames": frames} for frames in (-3, 0, 10**9, 3, None)),
        *({"context": context} for context in (0, 31, 2 * 10**9)),
        {"frames": 65_535, "grid": [200, 200], "context": 65_535 * 200 * 200},  # they go together
        *({"used_ids": used} for used in (None, 60, 65, 10**12)),
        *({"step": step} for step in (-5, 1.5, "1", None)),
        *({"stride": stride} for stride in (0, -1, "4")),
        *({"tokenizer": {**TOKENIZER, **wrong}} for wrong in ({"id": 5}, {"patch": 10**9}, {"vocab_size": 0})),
        *({"recipe": recipe} for recipe in ({}, {"a": 1}, {"format": 9})),
    ],
)
def test_facts_that_describe_no_model_are_told(saved: Path, tmp_path: Path, change: dict) -> None:
    folder = shutil.copytree(saved, tmp_path / "step")
    rehash(folder, json.loads((folder / "checkpoint.json").read_text()) | change)
    with pytest.raises(UserError) as caught:
        load_model(folder)
    assert caught.value.exit_code == 1 and str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 400


def rehash(folder: Path, facts: dict | None = None) -> None:
    """Makes checkpoint.json vouch for `facts` and for what now lies in state/, as a malicious author would."""
    facts = facts or json.loads((folder / "checkpoint.json").read_text())
    del facts["hash"]
    if isinstance(facts["files"], dict):
        facts["files"] = {path.name: file_sha256(path) for path in (folder / "state").iterdir()}
    (folder / "checkpoint.json").write_text(json.dumps({**facts, "hash": json_sha256(facts)}))


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    other = Llama(ModelConfig(name="other", dim=32, layers=2, heads=2, mlp_hidden=32), 64)
    assert "does not fit" in one_line(checkpoint.load, folder, checkpoint.tensors_of(other))


def test_old_checkpoints_go_but_for_the_newest_and_the_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step)
    checkpoint.retain(tmp_path, newest=2, every=3)
    assert [path.name[-1] for path in checkpoint.found(tmp_path)] == ["3", "6", "7"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in checkpoint.found(tmp_path)]


def test_what_a_kill_left_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    shutil.copytree(folder, tmp_path / ".step-000000002.partial")
    (folder.parent / "step-000000003").mkdir()  # made by hand
    assert checkpoint.found(tmp_path) == [folder]
    checkpoint.clean(tmp_path)
    assert not (tmp_path / ".step-000000002.partial").exists()


def test_a_full_disk_leaves_the_last_good_checkpoint(disk: Disk) -> None:
    run = disk.place / "run"
    run.mkdir()
    good = save(run, 1)
    filler = disk.fill(left=8192)
    message = one_line(save, run, 2)
    assert "full" in message and str(good) in message
    assert checkpoint.found(run) == [good] and not list(run.glob(".step*"))
    load_model(good)
    filler.unlink()
    load_model(save(run, 2))


@pytest.mark.parametrize("limit", [2000, 40_000])
def test_a_limit_on_the_size_of_files_is_told_as_one(limit: int, tmp_path: Path) -> None:
    good, tensors = save(tmp_path, 1), checkpoint.tensors_of(*trained())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        message = one_line(checkpoint.save, tmp_path, 2, tensors, FACTS, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no room, or a quota" in message and str(good) in message and "inline_container" not in message
    assert checkpoint.found(tmp_path) == [good]


def test_an_error_of_the_disk_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 1)

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(target))

    monkeypatch.setattr(os, "replace", refuse)
    assert "Input/output error" in one_line(save, tmp_path, 2)
    assert checkpoint.found(tmp_path) == [good]
