"""The whole folder of real and difficult media, through the command: nothing lost, nothing hangs, reasons are right."""

import json
from pathlib import Path

import pytest
from clips import call
from media_reasons import REASONS, TOO_SHORT

from toto import Dataset

FOLDERS = ("video_real", "video_hard", "audio_only", "image_hard", "image_plain", "image_labelled")


@pytest.fixture(scope="module")
def folder(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Links to the videos and pictures."""
    root = tmp_path_factory.mktemp("media")
    for name in FOLDERS:
        (root / name).symlink_to(media / name)
    return root


def run(folder: Path, out: Path, min_frames: int, *more: str):  # type: ignore[no-untyped-def]
    sets = (f"root={folder}", "resolution=32", f"min_frames={min_frames}", "max_bad_fraction=1", *more)
    options = [word for s in sets for word in ("--set", f"datasets.folder.{s}")]
    done = call(
        "tokenize",
        "run",
        "folder",
        "--out",
        out,
        "--ray-address",
        "local",
        "--quiet",
        "--tokenizer",
        "dct-512",
        *options,
    )
    assert done.returncode == 0, done.stderr
    return Dataset(out)


def kept_by_index(media: Path) -> dict[str, int]:
    """Video file -> frames kept at stride 4, from the index of the folder."""
    rows = json.loads((media / "index.json").read_text())["rows"]
    return {row["file"]: -(-row["frames_decoded"] // 4) for row in rows if row.get("frames_decoded")}


def test_with_min_frames_1_all_that_is_readable_is_there_and_the_rest_has_its_reason(
    folder: Path, media: Path, tmp_path: Path
) -> None:
    dataset = run(folder, tmp_path / "out", 1)
    quarantine = dataset.quarantine()
    found = dict(zip(quarantine["key"].to_pylist(), quarantine["reason"].to_pylist(), strict=True))
    assert found == {key: reason for key, reason in REASONS.items() if not key.endswith(".mp3")}  # no media suffix
    frames: dict[str, int] = {}
    for row in dataset.rows():
        frames[row.source] = frames.get(row.source, 0) + row.n_frames
    listed = {
        str(path.relative_to(folder)) for name in FOLDERS for path in (folder / name).rglob("*") if path.is_file()
    }
    assert set(frames) | set(found) == {key for key in listed if not key.endswith((".json", ".mp3"))}
    expected = {key: kept for key, kept in kept_by_index(media).items() if key in listed and key not in REASONS}
    assert {key: frames[key] for key in expected} == expected and len(expected) >= 80


def test_with_min_frames_16_exactly_the_short_videos_are_too_short(folder: Path, tmp_path: Path) -> None:
    quarantine = run(folder, tmp_path / "out", 16, "most_frames=16").quarantine().to_pylist()
    assert {line["key"] for line in quarantine if line["reason"] == "too_short"} == TOO_SHORT
    assert {line["key"]: line["reason"] for line in quarantine if line["reason"] != "too_short"} == {
        key: reason for key, reason in REASONS.items() if not key.endswith(".mp3")
    }
