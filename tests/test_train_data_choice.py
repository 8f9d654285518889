"""What a run reads: which datasets, which of their splits, and where they lie, also when that is odd or changes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from token_world import Video, moving_codes, write_tokens
from train_toy import command_line, losses, trained

from toto.config import load
from toto.errors import UserError
from toto.shards.ids import CODE_OFFSET
from toto.train.alone import alone
from toto.train.held_out import held_out
from toto.train.load import load_model
from toto.train.parallel import Team
from toto.train.run import Asked, prepare


def dataset(root: Path, splits: dict[str, int], frames: int = 8, seed: int = 0) -> Path:
    """Moving codes, as many videos in each split as it says."""
    codes, labels = moving_codes(sum(splits.values()), frames=frames, seed=seed)
    names = [split for split, count in splits.items() for _ in range(count)]
    videos = [Video(f"{seed}-{i}.mp4", codes[i], split=names[i], label=int(labels[i])) for i in range(len(names))]
    return write_tokens(root, videos)


def prepared(*data: Path, out: Path) -> object:
    sets = ["recipes.demo.frames=4", "recipes.demo.batch_tokens=256", "recipes.demo.kinds=all"]
    asked = Asked("tiny", "demo", tuple(map(str, data)), str(out))
    return prepare(asked, load((), sets), Team(0, 1, torch.device("cpu")))


def test_what_is_trained_on_is_not_called_held_out(tmp_path: Path) -> None:
    only = dataset(tmp_path / "only", {"val": 6})
    job = prepared(only, out=tmp_path / "run")
    assert [part.split for part in job.stream.parts] == ["val"] and job.validation is None  # type: ignore[attr-defined]


def test_a_held_out_split_too_short_for_a_window_does_not_stop_training(tmp_path: Path) -> None:
    codes, _ = moving_codes(6)
    videos = [Video(f"{i}.mp4", codes[i]) for i in range(5)] + [Video("5.mp4", codes[5][:2], split="val")]
    job = prepared(write_tokens(tmp_path / "set", videos), out=tmp_path / "run")
    assert job.validation is None  # type: ignore[attr-defined]


def test_datasets_in_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one" / "dct-128", {"train": 4, "val": 2})
    other = dataset(tmp_path / "o:ther" / "dct-128", {"train": 4, "val": 2}, seed=1)
    job = prepared(one, other, out=tmp_path / "run")
    assert [part.name for part in job.stream.parts] == ["one/dct-128", "o-ther/dct-128"]  # type: ignore[attr-defined]


def test_a_run_goes_on_when_its_shards_were_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(tmp_path / "a" / "set" / "dct", {"train": 12, "val": 4})
    whole = trained(data, tmp_path / "whole")
    run = trained(data, tmp_path / "run", "--stop-at", "5")
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "set").rename(tmp_path / "b" / "set")
    trained(tmp_path / "b" / "set" / "dct", run)
    assert losses(run) == losses(whole)


def test_a_mixture_is_judged_on_those_of_its_datasets_that_hold_something_out(tmp_path: Path) -> None:
    with_val = dataset(tmp_path / "x" / "with", {"train": 8, "val": 5})
    more_val = dataset(tmp_path / "x" / "more", {"train": 8, "val": 12}, seed=2)
    without = dataset(tmp_path / "x" / "without", {"train": 8}, seed=1)
    arguments = command_line(with_val, tmp_path / "run")
    assert "--data" in arguments
    trained(with_val, tmp_path / "run", "--data", str(without), "--data", str(more_val), "--stop-at", "1")
    loaded = load_model(tmp_path / "run")
    stream = held_out(loaded, None, "val", "video")
    per_epoch = stream.sequences_per_epoch()
    assert set(per_epoch) == {"x/with", "x/more"} and len(set(per_epoch.values())) == 2
    seen = [clip for g in range(sum(per_epoch.values())) for clip in stream.sequence(g).clips]
    assert len({(clip.source, clip.start) for clip in seen}) == len(seen) == sum(per_epoch.values())  # each once
    assert stream.sequence(0).tokens[1:-1].min() >= CODE_OFFSET
    with pytest.raises(UserError, match="no split 'test'"):
        held_out(loaded, None, "test", "video")


def test_two_runs_in_one_folder_are_refused_and_a_refused_one_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with alone(run):
        (run / "run.json").write_text("{}")
        assert "another process trains" in taking(run)  # a process does not refuse itself
    assert not taking(run)
    with alone(run):
        pass  # a folder that was let go can be taken
    with pytest.raises(UserError, match="no"), alone(tmp_path / "other"):
        raise UserError("no")
    assert run.exists() and not (tmp_path / "other").exists()


def taking(run: Path) -> str:
    """What another process says that wants the folder; nothing when it gets it."""
    take = (
        "import sys; from pathlib import Path; from toto.train.alone import alone; alone(Path(sys.argv[1])).__enter__()"
    )
    return subprocess.run([sys.executable, "-c", take, str(run)], capture_output=True, text=True).stderr


def test_a_model_is_not_judged_on_frames_of_another_grid(tmp_path: Path) -> None:
    data = dataset(tmp_path / "small" / "set", {"train": 12, "val": 4})
    trained(data, tmp_path / "run", "--stop-at", "1")
    codes, labels = moving_codes(6, grid=(8, 8))
    larger = [Video(f"{i}.mp4", codes[i], split="val", label=int(labels[i])) for i in range(6)]
    other = write_tokens(tmp_path / "large" / "set", larger)
    with pytest.raises(UserError, match="8×8"):
        held_out(load_model(tmp_path / "run"), str(other), "val", "video")
