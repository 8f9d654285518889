"""`toto-shards seen`: from a training step back to sources, frames, times and pictures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image as Picture
from token_world import Image, Video, moving_videos, still_images, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.cli import cli
from toto.shards.look import pictures
from toto.shards.recipe import RECIPE, Recipe, make_recipe
from toto.shards.stream import Stream, open_run
from toto.tokenizers import load

BATCH = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two datasets, one of them of videos and images."""
    folder = tmp_path_factory.mktemp("runs")
    mixed = write_tokens(folder / "mixed", moving_videos(9, frames=20), still_images(12))
    wild = write_tokens(folder / "wild", [Video("wild.mp4", moving_videos(1, frames=30)[0].codes, runs=(9, 21))])
    made = make_recipe([("mixed", str(mixed), 2, None), ("wild", str(wild), 1, None)], 4, 8, 0, BATCH)
    (folder / RECIPE).write_text(made.to_json())
    return folder


def seen(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[list[str], dict[str, Any]]:
    """Lines and JSON that `toto-shards seen` says."""
    cli.main(["seen", *map(str, words), "--json"], standalone_mode=False)
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def test_a_step_is_its_batch_with_sources_frames_and_times(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream, kinds = open_run(run), set()
    for step in (1, 2, 41_200):
        lines, value = seen(capsys, "--run", run, "--step", str(step))
        sequences = [stream.sequence((step - 1) * BATCH + i) for i in range(BATCH)]
        assert value["batch"] == f"{sum(s.hash for s in sequences) % 2**64:016x}"
        assert [s["number"] for s in value["sequences"]] == [s.number for s in sequences]
        assert len(lines) == sum(len(s.clips) for s in sequences)
        for told, sequence in zip(value["sequences"], sequences, strict=True):
            kinds.add(told["part"])
            assert told["dataset_id"] == stream.dataset(sequence.part).dataset_id
            dataset, codes = Dataset(stream.dataset(sequence.part).store.uri), []
            for clip in told["clips"]:
                (row,) = [row for row in dataset.frames(clip["source"]) if row.record.row_id.hex() == clip["row_id"]]
                positions = [row.frame_index.tolist().index(frame) for frame in clip["frame_index"]]
                codes.append(row.codes[positions])
                if clip["pts_us"] is not None:
                    assert clip["pts_us"] == row.pts_us[positions].tolist()
                    assert np.diff(clip["frame_index"]).tolist() == [8, 8, 8]
            assert (np.concatenate(codes).reshape(-1) + 4 == sequence.tokens[1:-1]).all()
    assert kinds == {"mixed:video", "mixed:image", "wild"}


def test_one_sequence_of_a_step_is_shown_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, whole = seen(capsys, "--run", run, "--step", "3")
    for i in range(BATCH):
        lines, value = seen(capsys, "--run", run, "--step", "3", "--sequence", str(i))
        assert value["sequences"] == [whole["sequences"][i]] and value["batch"] is None
        assert all(line.startswith(f"sequence {i}") for line in lines)
        assert all(clip["source"] in line for line, clip in zip(lines, value["sequences"][0]["clips"], strict=True))


def test_pictures_are_what_the_tokenizer_decodes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen(capsys, "--run", run, "--step", "1", "--sequence", "0", "--out", tmp_path / "one.png")
    stream = open_run(run)
    (clip,) = stream.sequence(0).clips
    sheet = np.asarray(Picture.open(tmp_path / "one.png").convert("RGB"))
    shown = load(stream.tokenizer).decode(clip.row.codes[clip.positions]).transpose(0, 2, 3, 1)
    top, left = pictures.MARGIN + pictures.LINE_HEIGHT, pictures.MARGIN + pictures.LABEL_WIDTH
    for k, frame in enumerate(shown):
        x = left + k * (128 + pictures.GAP)
        assert (sheet[top : top + 128, x : x + 128] == np.kron(frame, np.ones((4, 4, 1), np.uint8))).all()


def test_a_page_shows_every_clip_and_trusts_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "<script>alert(1)</script>.mp4"
    root = write_tokens(tmp_path / "set", [Video(hostile, moving_videos(1)[0].codes)])
    made = make_recipe([("<b>set</b>", str(root), 1, None)], 4, 4, 0, 3)
    (tmp_path / RECIPE).write_text(made.to_json())
    lines, _ = seen(capsys, "--run", tmp_path, "--step", "1", "--out", tmp_path / "step.html")
    page = (tmp_path / "step.html").read_text()
    assert "<script" not in page and "<b>set" not in page and "&lt;script&gt;" in page
    assert page.count("<figure>") == 3 and "Step 1: what it read" in page
    assert lines[-1] == str(tmp_path / "step.html")


def test_of_many_clips_the_first_are_drawn_and_a_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [Image(f"{i}.png", np.full((2, 2), i)) for i in range(12)]
    root = write_tokens(tmp_path / "set", images=images)
    (tmp_path / RECIPE).write_text(make_recipe([("set", str(root), 1, None)], 12, None, 0, 3).to_json())
    lines, value = seen(capsys, "--run", tmp_path, "--step", "1", "--out", tmp_path / "step.gif")
    assert sum(len(sequence["clips"]) for sequence in value["sequences"]) == 36
    assert "pictures of the first 32 of 36 clips; --sequence N shows another" in lines
    assert (tmp_path / "step.gif").read_bytes().startswith(b"GIF8")


def test_what_is_not_there_is_said_in_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no training run at {tmp_path} .no recipe.json there."):
        open_run(tmp_path)
    with pytest.raises(UsageError, match="a step of this run has 6 sequences, the first is 0"):
        cli.main(["seen", "--run", str(run), "--step", "1", "--sequence", "6"], standalone_mode=False)
    with pytest.raises(UserError, match="^no training run at [^\n]*$"):
        cli.main(["seen", "--run", str(tmp_path), "--step", "1"], standalone_mode=False)
    with pytest.raises(click.UsageError, match="0 is not in the range x>=1"):
        cli.main(["seen", "--run", str(run), "--step", "0"], standalone_mode=False)


def test_a_recipe_that_names_another_dataset_is_refused(run: Path, tmp_path: Path) -> None:
    made = Recipe.from_json((run / RECIPE).read_text())
    parts = tuple(dataclasses.replace(part, dataset_id="0" * 64) for part in made.parts)
    with pytest.raises(UserError, match="0 snapshots with id"):
        Stream(dataclasses.replace(made, parts=parts))
