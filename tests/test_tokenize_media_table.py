"""Every real media file through one decoder: decoded whole, or failing for the reviewed reason.

The files are those of the test media's index.json, most of them odd or damaged; media_reasons.py says why each
unreadable one is. They are decoded at 32 px, every fourth frame.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from footage import request
from media_reasons import REASONS, TOO_SHORT

from toto.shards.flags import Flag
from toto.tokenize.clip import SourceError, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.sources.names import IMAGE_SUFFIXES, suffix_of

CATEGORIES = ("video_real", "video_hard", "audio_only", "image_hard", "image_plain", "image_labelled")
Outcomes = dict[str, SourceInfo | str]  # by file: the facts, or the reason why it failed


@pytest.fixture(scope="module")
def index(media: Path) -> dict[str, dict[str, Any]]:
    """What is known of each media file."""
    rows = json.loads((media / "index.json").read_text())["rows"]
    wanted = (row for row in rows if row["category"] in CATEGORIES)
    return {row["file"]: row for row in wanted if suffix_of(row["file"]) != ".json"}


@pytest.fixture(scope="module")
def outcomes(media: Path, index: dict[str, dict[str, Any]]) -> Outcomes:
    """What became of each file."""
    with Decoder(timeout_s=60, memory_mb=4096) as decoder:
        return {file: outcome(decoder, media / file) for file in index}


def outcome(decoder: Decoder, path: Path) -> SourceInfo | str:
    kind = "image" if suffix_of(path.name) in IMAGE_SUFFIXES else "video"
    asked = request(path, kind=kind, stride=4, crop="random", resolution=32)
    kept = 0
    try:
        for part in decoder.decode(asked):
            if isinstance(part, SourceInfo):
                assert part.frames_kept == kept, path
                return part
            assert part.frames is not None and part.frames.shape[1:] == (32, 32, 3), path
            kept += len(part.frames)
    except SourceError as error:
        return error.reason
    raise AssertionError(f"{path}: no end")


def readable(outcomes: Outcomes) -> Iterator[tuple[str, SourceInfo]]:
    return ((file, info) for file, info in outcomes.items() if isinstance(info, SourceInfo))


def test_every_unreadable_file_fails_for_its_reviewed_reason(outcomes: Outcomes) -> None:
    failed = {file: reason for file, reason in outcomes.items() if isinstance(reason, str)}
    assert failed == REASONS


def test_every_readable_video_gives_the_frames_that_the_index_counted(
    outcomes: Outcomes, index: dict[str, dict[str, Any]]
) -> None:
    counted = {file: row["frames_decoded"] for file, row in index.items() if row.get("frames_decoded")}
    found = {file: info.frames_decoded for file, info in readable(outcomes) if file in counted}
    assert found == {file: frames for file, frames in counted.items() if file not in REASONS}
    assert len(found) >= 80


def test_every_fourth_frame_is_kept(outcomes: Outcomes) -> None:
    for file, info in readable(outcomes):
        assert info.frames_kept == math.ceil(info.frames_decoded / 4) >= 1, file


def test_the_videos_with_fewer_than_sixteen_kept_frames_are_known(outcomes: Outcomes) -> None:
    short = {file for file, info in readable(outcomes) if info.kind == "video" and info.frames_kept < 16}
    assert short == TOO_SHORT


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ("video_real/kinetics/R6llTwEh07w.mp4", Flag(0)),
        ("video_real/other/demo.mp4", Flag.NON_SQUARE),
        ("video_hard/annex-b.mp4", Flag.SALVAGED),  # cut short: no packet fails, many are not there
        ("video_hard/corrupted.mp4", Flag.SALVAGED),
        ("video_hard/video_90.mov", Flag.ROTATED),
        ("video_hard/nasa_13013_hdr.mp4", Flag.HDR),
        ("video_hard/dolbyVision-hdr.MOV", Flag.HDR | Flag.ROTATED),
        ("video_hard/displaymatrix.mp4", Flag.SALVAGED | Flag.ROTATED | Flag.NON_SQUARE),
        ("image_hard/hopper_orientation_6.jpg", Flag.ROTATED),
        ("image_hard/n03337140_file.JPEG", Flag(0)),  # orientation 0 is none
    ],
)
def test_what_is_odd_about_a_file_is_flagged(outcomes: Outcomes, file: str, flags: Flag) -> None:
    info = outcomes[file]
    assert isinstance(info, SourceInfo)
    assert Flag(info.flags) == flags


def test_only_damaged_files_are_flagged_as_salvaged(outcomes: Outcomes) -> None:
    salvaged = {Path(file).name for file, info in readable(outcomes) if info.flags & Flag.SALVAGED}
    assert salvaged == {
        "annex-b.mp4",
        "sample_with_invalid_nalu.mp4",
        "corrupted.mp4",
        "displaymatrix.mp4",
        "demo.mp4",
    }


def test_the_largest_video_stream_is_chosen(outcomes: Outcomes) -> None:
    info = outcomes["video_hard/nasa_13013.mp4"]
    assert isinstance(info, SourceInfo)
    assert (info.width, info.height, info.frames_decoded) == (480, 270, 390)


def test_measured_rates_replace_what_containers_claim(outcomes: Outcomes) -> None:
    info = outcomes["video_hard/sample.flv"]
    assert isinstance(info, SourceInfo) and info.fps == pytest.approx(30, abs=0.5), "the header says 1,000"
