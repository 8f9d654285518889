"""What a user or a machine can do wrong during training: one or two lines, the right exit code, nothing lost."""

import shutil
import time
from pathlib import Path

import fsspec
import pytest
import torch
from fault_proxy import FaultProxy
from object_store import s3, upload  # noqa: F401
from small_disk import Disk, small_disk  # noqa: F401
from token_world import Video, moving_codes, moving_videos, write_tokens
from train_toy import Command, batches, call, command_line, same_state, sets, state, steps, trained, world

from toto.train import checkpoint
from toto.train.parallel import Team
from toto.train.run import RUN

ALONE = Team(0, 1, torch.device("cpu"))
NO_CACHE = {"TOTO_CACHE_BYTES": "0"}  # with one, a run reads on without its shards


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that meets no trouble."""
    return trained(data, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def begun(whole: Path, tmp_path: Path) -> Path:
    """A copy of it as it was after 12 of 18 steps, with checkpoints of 6 and 12."""
    run = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run / checkpoint.name_of(18))
    return run


def assert_ends_like(run: Path, whole: Path, data: Path) -> None:
    """Nothing is lost: gone on with, the run ends as if there had been no trouble."""
    trained(data, run)
    assert steps(run) == steps(whole) and same_state(run, whole)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--size", "tny"], ["unknown model 'tny'; did you mean 'tiny'?"]),
        (["--recipe", "dmo"], ["unknown recipe 'dmo'; did you mean 'demo'?"]),
        (["--set", "recipes.demo.stepz=3"], ["recipes.demo.stepz", "did you mean 'steps'?"]),
        (["--set", "recipes.demo.steps=many"], ["recipes.demo.steps", "many is not a whole number"]),
        (["--set", "recipes.demo.learning_rate=1e9"], ["recipes.demo.learning_rate", "from 0 to 10"]),
        (["--set", "recipes.demo.batch_tokens=50"], ["batch_tokens is 50", "one sequence has 64 tokens"]),
        (["--set", "recipes.demo.mixture=papr"], ["unknown mixture 'papr'; did you mean 'paper'?"]),
        (["--data", "{data}"], ["names may not repeat"]),
        (["--data", ""], ["--data is empty"]),
        (["--out", ""], ["--out is empty"]),
    ],
)
def test_a_wrong_command_line_is_told(changed: list[str], said: list[str], data: Path, tmp_path: Path) -> None:
    arguments = command_line(data, tmp_path / "run")
    if "mixture" in changed[-1]:
        arguments = ["pretrain", "--size", "tiny", "--recipe", "demo", *sets()]
    ended = call([*arguments, *(word.format(data=data) for word in changed)], tmp_path / "run")
    assert ended.failed(2, *said), ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_weight_that_is_no_whole_number_is_told(tmp_path: Path) -> None:
    ended = call(["pretrain", "--size", "tiny", "--recipe", "demo", "--data", "demo=²"], tmp_path / "run")
    assert ended.failed(1, "--data demo=²", "a weight is a whole number"), ended.stderr


def test_no_size_is_told_with_those_there_are(tmp_path: Path) -> None:
    assert call(["pretrain"], tmp_path / "run").failed(2, "--size", "large", "make pretrain SIZE=large")


def test_missing_shards_are_named_with_the_line_that_makes_them(data: Path, tmp_path: Path) -> None:
    arguments = ["pretrain", "--size", "tiny", "--recipe", "demo", "--out", str(tmp_path / "run")]
    ended = call(arguments, tmp_path / "run", TOTO_DATA=str(tmp_path))
    assert ended.failed(1, "no shards of demo", f"{tmp_path}/demo/dct-512-64", "make them: toto-tokenize run demo"), (
        ended
    )
    ended = call(["pretrain", "--size", "large"], tmp_path / "run", TOTO_DATA=str(tmp_path))
    assert ended.failed(1, "no shards of imagenet21k", "howto100m", "toto-tokenize run howto100m;"), ended
    write_tokens(tmp_path / "demo" / "dvae-64", moving_videos(2))
    ended = call(arguments, tmp_path / "run", TOTO_DATA=str(tmp_path))
    assert ended.failed(1, "dct-512-64)", "other tokenizers' are there: --set datasets.demo.tokenizer=dvae; or"), ended
    ended = call([*arguments, "--data", str(tmp_path / "nowhere")], tmp_path / "run")
    assert ended.failed(1, f"{tmp_path}/nowhere", "dataset.json"), ended
    ended = call([*arguments, "--data", "k60"], tmp_path / "run")
    assert ended.failed(1, "--data k60: neither a dataset", "did you mean 'k600'?"), ended
    ended = call([*arguments, "--data", "k600=-1"], tmp_path / "run")
    assert ended.failed(1, "--data k600=-1: neither a dataset", "a weight is a whole number"), ended


def test_shards_of_two_tokenizers_are_not_mixed(data: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", moving_videos(8), tokenizer_id="f" * 64)
    ended = call(command_line(data, tmp_path / "run", "--data", str(other)), tmp_path / "run")
    assert ended.failed(1, "/set and ", "/other differ in their tokenizer"), ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_begin_in_a_dataset(data: Path, tmp_path: Path) -> None:
    before = sorted(data.iterdir())
    ended = call(command_line(data, data), tmp_path / "run")
    assert ended.failed(2, f"--out {data} holds a token dataset"), ended.stderr
    assert sorted(data.iterdir()) == before


def test_another_runs_folder_is_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", moving_videos(8))
    for more, said in [
        (["--size", "base"], "model.name 'tiny', not 'base'"),
        (["--set", "models.tiny.dim=64"], "model.dim 32, not 64"),
        (["--set", "recipes.demo.steps=99"], "recipe.steps 18, not 99 (the learning rate follows from it"),
        (["--set", "recipes.demo.seed=1"], "recipe.seed 0, not 1"),
        (["--data", str(other)], f"a run on {data}=1"),
    ]:
        ended = call(command_line(data, whole, *more), tmp_path / "said" / "run")
        assert ended.failed(2, f"{whole} holds a run", said[:-4] if "dim" in said else said, "--out"), ended.stderr


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"format": 1}', '{"format": 2}', ""])
def test_a_foreign_run_json_is_told(text: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RUN).write_text(text)
    ended = call(command_line(data, tmp_path / "run"), tmp_path / "run")
    assert ended.failed(1, str(tmp_path / "run" / RUN)), ended.stderr
    assert (tmp_path / "run" / RUN).read_text() == text


def test_checkpoints_of_another_run_are_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    newest = checkpoint.found(whole)[-1]
    shutil.copytree(newest, tmp_path / "run" / newest.name)
    ended = call(command_line(data, tmp_path / "run", seed=1), tmp_path / "run")
    assert ended.failed(1, newest.name, "belongs to another run", "--out"), ended.stderr


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "checkpoint.json"])
def test_a_damaged_newest_checkpoint_is_told_and_the_run_goes_on_from_the_one_before(
    name: str, begun: Path, whole: Path, data: Path
) -> None:
    newest = begun / checkpoint.name_of(12)
    flip((next(newest.rglob(name)),))
    ended = call(command_line(data, begun), begun)
    assert ended.failed(1, str(newest), "damaged", f"remove {newest}"), ended.stderr
    if name == "__0_0.distcp":
        shutil.rmtree(newest)
        assert_ends_like(begun, whole, data)


def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_saved(begun: Path, data: Path) -> None:
    newest = begun / checkpoint.name_of(12)
    poison(newest)
    before = contents(begun)
    ended = call(command_line(data, begun, validate_every=1, log_every=10, spike_sigmas=0), begun)
    assert ended.failed(1, "step 13: the loss is nan", "toto-shards seen", "--step 13"), ended.stderr
    assert [folder.name for folder in checkpoint.found(begun)][-1] == newest.name
    assert all(torch.isfinite(tensor).all() for tensor in state(begun / checkpoint.name_of(6)).values())
    assert "NaN" not in (begun / "metrics.jsonl").read_text() and contents(begun) == before


def test_weights_that_explode_are_never_saved(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changed = {"learning_rate": 10, "warmup_steps": 0, "clip": 0, "beta1": 0, "beta2": 0, "weight_decay": 10}
    ended = call(command_line(data, run, "--json", **changed), run)
    left = "its last checkpoint is from before" if checkpoint.found(run) else "it has no checkpoint yet"
    assert ended.code == 0 or ended.failed(1, f"the run stops, {left}"), ended.stderr
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    for folder in checkpoint.found(run):
        assert all(torch.isfinite(tensor).all() for tensor in state(folder).values())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_shard_is_told_and_nothing_is_lost(
    workers: int, begun: Path, whole: Path, data: Path, tmp_path: Path
) -> None:
    hidden = (data / "shards").rename(tmp_path / "hidden")
    (data / "shards").mkdir()
    try:
        ended = call(command_line(data, begun, loader_workers=workers), begun, **NO_CACHE)
    finally:
        (data / "shards").rmdir()
        hidden.rename(data / "shards")
    assert ended.failed(1, "shards/", "the file is missing", "toto-shards verify"), ended.stderr
    assert_ends_like(begun, whole, data)


def test_shards_deleted_under_a_run_end_it_in_one_line_or_not_at_all(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    command = Command(command_line(data, run, loader_workers=1), run)
    while len(batches(run)) < 2 and command.process.is_alive():
        time.sleep(0.001)
    shutil.rmtree(data / "shards")
    ended = command.ended()
    assert ended.code == 0 or ended.failed(1, "the shard is missing"), ended.stderr
    assert len(batches(run)) >= 2


def test_a_bucket_that_was_emptied_is_told_and_the_run_goes_on_when_it_is_full_again(
    s3: FaultProxy,  # noqa: F811
    begun: Path,
    whole: Path,
    data: Path,
) -> None:
    uri, files = upload(data, f"{data.parent.name}/{data.name}"), fsspec.filesystem("s3")  # datasets may move
    arguments = [word if word != str(data) else uri for word in command_line(data, begun)]
    shards = files.find(f"{uri}/shards")
    for path in shards:
        files.rm_file(path)
    ended = call(arguments, begun, **NO_CACHE)
    assert ended.failed(1, "shards/", "missing"), ended.stderr
    for path in shards:
        files.pipe_file(path, (data / "shards" / Path(path).name).read_bytes())
    ended = call(arguments, begun)
    assert ended.code == 0, ended.stderr
    assert steps(begun) == steps(whole) and same_state(begun, whole)


def test_a_flipped_byte_in_a_shard_is_found_before_it_is_trained_on(begun: Path, data: Path, tmp_path: Path) -> None:
    shards = sorted((data / "shards").glob("*.arrow"))
    before = {path: path.read_bytes() for path in shards}
    flip(shards)
    try:
        ended = call(command_line(data, begun), begun, **NO_CACHE)
    finally:
        for path, text in before.items():
            path.write_bytes(text)
    assert ended.failed(1, "shards/", "toto-shards verify --deep"), ended.stderr


def test_an_id_beyond_the_vocabulary_is_told_with_its_source(tmp_path: Path) -> None:
    codes, _ = moving_codes(8)
    codes[5, 2] += 1000
    data = write_tokens(tmp_path / "set", [Video(f"{i}.mp4", c) for i, c in enumerate(codes)])
    ended = call(command_line(data, tmp_path / "run"), tmp_path / "run")
    assert ended.failed(1, str(data), "5.mp4", "outside 4 … 67", "tokenize it anew"), ended.stderr


@pytest.mark.parametrize("left", [0, 60_000])
def test_a_full_disk_keeps_the_last_good_checkpoint_and_the_run_goes_on_later(
    left: int, begun: Path, whole: Path, data: Path, disk: Disk
) -> None:
    run = shutil.copytree(begun, disk.place / "run")
    filler = disk.fill(left)
    ended = call(command_line(data, run), begun)
    assert ended.failed(1, str(run), "the disk is full"), ended.stderr
    assert checkpoint.found(run)[-1].name == checkpoint.name_of(12)
    filler.unlink()
    assert_ends_like(run, whole, data)


def test_a_folder_that_cannot_be_written_is_told(begun: Path, whole: Path, data: Path, disk: Disk) -> None:
    run = shutil.copytree(begun, disk.place / "run")
    disk.remount("ro")
    for place in (run, disk.place / "new"):
        ended = call(command_line(data, place), begun)
        assert ended.failed(1, str(place), "read-only"), ended.stderr
    disk.remount("rw")
    assert_ends_like(run, whole, data)


def test_a_file_in_the_way_of_the_folder_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("somebody's file")
    ended = call(command_line(data, tmp_path / "run"), tmp_path / "said" / "run")
    assert ended.failed(1, str(tmp_path / "run")), ended.stderr
    assert (tmp_path / "run").read_text() == "somebody's file"


def flip(paths) -> None:
    """Turns a bit in the middle of each file."""
    for path in paths:
        text = bytearray(path.read_bytes())
        text[len(text) // 2] ^= 4
        path.write_bytes(text)


def poison(folder: Path) -> None:
    """A checkpoint, whole by its hashes, of weights one of which is no number."""
    facts, tensors = checkpoint.read_facts(folder), state(folder)
    tensors["model.table.weight"][7] = torch.nan
    nested: checkpoint.Tensors = {"model": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        section, _, rest = name.partition(".")
        nested[section][rest] = tensor
    checkpoint.save(folder.parent, facts["step"], nested, {k: v for k, v in facts.items() if k != "files"}, ALONE)


def contents(run: Path) -> dict[Path, bytes]:
    """Every file of the checkpoints."""
    return {path: path.read_bytes() for path in run.glob("step-*/**/*") if path.is_file()}
