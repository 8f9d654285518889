"""split: every source in one split, no group in two, the same one in every dataset; the rows stay as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrites import QUIET, results, rows, whole, world, worlds
from token_world import Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.cli import cli
from toto.shards.rewrite.derive import Options
from toto.shards.rewrite.split import Division, group_of, parse_shares, split

HALVES = parse_shares("train=0.5,dev=0.5")


def splits_of(root: str | Path) -> dict[str, str]:
    """Source -> split, by the per-source results."""
    return {line["key"]: line["split"] for line in results(root)}


@settings(max_examples=2)
@given(worlds(), st.integers(0, 9))
def test_a_split_is_a_partition_of_the_sources(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    source, out = write_tokens(folder / "in", **made), folder / "out"
    split(str(source), str(out), Division(HALVES, seed, pooled=True, allow_empty=True), 1_000, QUIET)
    before, after = results(source), results(out)
    assert [{**line, "split": ""} for line in before] == [{**line, "split": ""} for line in after]
    assert sorted(row[1:] for row in rows(out).elements()) == sorted(row[1:] for row in rows(source).elements())
    assert all(splits_of(out)[row[2]] == row[0] for row in rows(out)) and whole(out)
    labels = Dataset(out).annotations("labels").to_pylist() if Dataset(out).info["annotations"] else []
    assert all(line["split"] == splits_of(out)[line["source"]] for line in labels)


def test_a_source_stays_in_its_split_when_others_are_added(tmp_path: Path) -> None:
    found = []
    for count in (20, 40):
        source, out = world(tmp_path / f"in{count}", count), tmp_path / f"out{count}"
        split(str(source), str(out), Division(HALVES, of="train"), options=QUIET)
        found.append(splits_of(out))
    assert found[0].items() <= found[1].items()
    assert {key: name for key, name in found[1].items() if name == "val"} == {
        key: name for key, name in splits_of(tmp_path / "in40").items() if name == "val"
    }
    counts = [list(found[1].values()).count(name) for name in ("train", "dev")]
    assert sum(counts) == 34 and min(counts) > 8


def test_pieces_of_one_video_stay_together(tmp_path: Path) -> None:
    names = [f"k600/{video:011d}_{start:06d}.mp4" for video in range(30) for start in range(3)]
    videos = [Video(name, np.full((2, 2, 2), i % 60)) for i, name in enumerate(names)]
    source, out = write_tokens(tmp_path / "in", videos), tmp_path / "out"
    split(str(source), str(out), Division(HALVES, group=r"/([\w-]{11})"), options=QUIET)
    of_video: dict[str, set[str]] = {}
    for key, name in splits_of(out).items():
        of_video.setdefault(key[5:16], set()).add(name)
    assert len(of_video) == 30 and all(len(names) == 1 for names in of_video.values())
    assert set.union(*of_video.values()) == {"train", "dev"}


@pytest.mark.parametrize(
    ("rule", "group"), [("source", "a/b/c_1.mp4"), ("folder", "a/b"), (r"c_(\d)", "1"), (r"^\w", "a")]
)
def test_what_a_group_is(rule: str, group: str) -> None:
    assert group_of(rule)("a/b/c_1.mp4") == group


def test_shares_are_drawn_as_asked() -> None:
    shares = parse_shares("a=0.7, b=0.2, c=0.1")
    numbers = [n << 54 for n in range(1_000)]  # evenly over 0 … 2^64
    drawn = [shares.drawn(number * 1_024 // 1_000) for number in numbers]
    assert np.abs(np.array([drawn.count(name) for name in "abc"]) - (700, 200, 100)).max() <= 1
    assert drawn == sorted(drawn)


@pytest.mark.parametrize("text", ["train", "train=0.5,val=0.6", "a=0.5,a=0.5", "a=1,b=-0", "a/b=1", "a=nan"])
def test_shares_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--into"):
        parse_shares(text)


@pytest.mark.parametrize(
    ("division", "error", "said"),
    [
        (Division(HALVES), UsageError, "has the splits train, val: say which one to divide"),
        (Division(HALVES, of="test"), UsageError, "has no split 'test'; it has: train, val"),
        (Division(parse_shares("train=0.5,val=0.5"), of="train"), UsageError, "split val stays as it is"),
        (Division(HALVES, of="train", group="("), UsageError, "not a regular expression"),
        (Division(HALVES, of="train", group="q"), UserError, "finds nothing in source"),
        (Division(parse_shares("train=0.999,dev=0.001"), of="train"), UserError, "split dev would have no source"),
    ],
)
def test_a_division_that_cannot_be_is_refused_and_leaves_nothing(
    division: Division, error: type[Exception], said: str, tmp_path: Path
) -> None:
    source = world(tmp_path / "in", 12)
    with pytest.raises(error, match=said.replace("(", r"\(")):
        split(str(source), str(tmp_path / "out"), division, options=QUIET)
    assert not (tmp_path / "out").exists()


def test_frames_beside_the_stride_do_not_come_into_train(tmp_path: Path) -> None:
    videos = [Video(f"{i}.mp4", np.zeros((4, 2, 2), int), "val") for i in range(4)]
    source = write_tokens(tmp_path / "in", videos, protocols=["slowfast-10x3-16f4"])
    with pytest.raises(UsageError, match="neither into train nor out of it"):
        split(str(source), str(tmp_path / "out"), Division(HALVES), options=QUIET)
    split(str(source), str(tmp_path / "out"), Division(parse_shares("val=0.5,dev=0.5"), 3), options=QUIET)


def test_the_command_says_what_each_split_gets_and_warns_of_leaks(tmp_path: Path) -> None:
    source, said = world(tmp_path / "in", 24), list[str]()
    arguments = ["split", str(source), "--out", str(tmp_path / "out"), "--from", "train", "--into", "train=0.8,dev=0.2"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0 and "val stays: 4 sources" in done.output and "dev: " in done.output, done.output
    division, options = Division(HALVES, of="train", group=r"(\d)\.mp4"), Options(say=said.append)
    again = split(str(source), str(tmp_path / "again"), division, options=options)
    assert any(line.startswith("warning: 4 groups of train also in another split") for line in said)
    assert again.snapshot.value["splits"]["val"]["rows"] == 4
