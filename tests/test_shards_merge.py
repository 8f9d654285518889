"""merge: datasets of one tokenizer as one; what does not go together is refused, with the way out."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import token_world
from click.testing import CliRunner
from hypothesis import given, settings
from rewrites import QUIET, results, rows, whole, world, worlds
from token_world import Image, Video, still_images, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.cli import cli
from toto.shards.rewrite.class_numbers import SCHEMA, by_name
from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.merge import Union, merge
from toto.shards.rewrite.pack import pack
from toto.shards.rewrite.split import Division, parse_shares, split
from toto.shards.rewrite.tables import _of_sources
from toto.shards.row import Row
from toto.shards.schema import row_id
from toto.shards.store import LocalStore


def videos(prefix: str, count: int, label: int | None = 0, **more: Any) -> list[Video]:
    """Two frames each."""
    return [Video(f"{prefix}{i}.mp4", np.full((2, 2, 2), i % 60), label=label, **more) for i in range(count)]


@settings(max_examples=2)
@given(worlds())
def test_what_was_split_is_merged_back(tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("merge")
    source = write_tokens(folder / "in", **made)
    halves = parse_shares("a=0.5,b=0.5")
    split(str(source), str(folder / "halves"), Division(halves, pooled=True, allow_empty=True), 500, QUIET)
    other = write_tokens(folder / "other", [Video("other.mp4", np.zeros((3, 2, 2), int), "a", 1, made_views(made))])
    merge([str(folder / "halves"), str(other)], str(folder / "out"), shard_bytes=500, options=QUIET)
    assert rows(folder / "out") == rows(folder / "halves") + rows(other)
    assert results(folder / "out") == sorted(results(folder / "halves") + results(other), key=lambda line: line["key"])
    assert whole(folder / "out")


def made_views(made: dict[str, Any]) -> int:
    """Views of what `worlds` draws."""
    return int([*made["videos"], *made["images"]][0].views)


def test_shared_sources_are_refused_or_skipped_or_kept_apart(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write_tokens(one, videos("x", 4))
    write_tokens(two, [*videos("x", 4), *videos("y", 3)])
    uris = [str(one), str(two)]
    with pytest.raises(UserError, match=r"4 sources in several .*first: x0.mp4, x1.mp4, x2.mp4.*--prefix.*--skip"):
        merge(uris, str(tmp_path / "out"), options=QUIET)
    assert not (tmp_path / "out").exists()
    merge(uris, str(tmp_path / "skipped"), Union(skip_shared=True), options=QUIET)
    assert [line["key"] for line in results(tmp_path / "skipped")] == [f"x{i}.mp4" for i in range(4)] + [
        f"y{i}.mp4" for i in range(3)
    ]
    assert len(Dataset(tmp_path / "skipped").labels()) == 7 and whole(tmp_path / "skipped")
    merge(uris, str(tmp_path / "apart"), Union(prefixes=("a/", "b/")), options=QUIET)
    apart = Dataset(tmp_path / "apart")
    assert len(apart) == 11 and set(apart.labels()) == {row.source for row in apart.rows()}
    assert all(row.record.row_id == row_id(row.source, row.run, row.view) for row in apart.rows())
    assert whole(tmp_path / "apart")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tokenizer_id": "0" * 16}, "ids of one mean nothing to the other"),
        ({"vocab_size": 512}, r"dct \(64 codes, id \w+\), \S+ has dct \(512 codes, id \w+\): ids of one mean nothing"),
        ({"stride": 2}, r"differ in how their rows were made \(stride: 4, 2\)"),
        ({"crop": "random", "keep_pixels": 16}, "crop: 'center', 'random'; keep_pixels: None, 16"),
    ],
)
def test_rows_that_do_not_mean_the_same_are_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    one, two = write_tokens(tmp_path / "one", videos("x", 2)), write_tokens(tmp_path / "two", videos("y", 2), **more)
    with pytest.raises(UsageError, match=said):
        merge([str(one), str(two)], str(tmp_path / "out"), options=QUIET)


def test_settings_that_choose_sources_may_differ(tmp_path: Path) -> None:
    one = write_tokens(tmp_path / "one", videos("x", 2), layout="ucf101")
    two = write_tokens(tmp_path / "two", videos("y", 2, split="val"), layout="kinetics")
    merge([str(one), str(two)], str(tmp_path / "out"), options=QUIET)
    told = Dataset(tmp_path / "out").info["settings"]
    assert told["layout"] is None and told["derived"]["differs"] == {"layout": ["ucf101", "kinetics"]}
    assert Dataset(tmp_path / "out").splits == ["train", "val"]


def test_class_numbers_that_mean_two_things_are_refused(tmp_path: Path) -> None:
    one = write_tokens(tmp_path / "one", [*videos("x", 2, 0), *videos("z", 2, 1)])
    two = write_tokens(tmp_path / "two", videos("y", 2, 1))
    merge([str(one), str(two)], str(tmp_path / "same"), options=QUIET)
    assert (
        Dataset(tmp_path / "same").annotations("classes").to_pylist() == Dataset(one).annotations("classes").to_pylist()
    )
    for name, names in (("moved", ["left", "up"]), ("twice", ["right", "down"])):
        other = renamed(tmp_path / name, names, 0 if name == "moved" else 3)
        with pytest.raises(UsageError, match=r"annotation 'classes' does not go together: .*--without classes"):
            merge([str(one), str(other)], str(tmp_path / "out"), options=QUIET)
    union = Union(without=frozenset({"classes", "labels"}))
    merge([str(one), str(other)], str(tmp_path / "out"), union, options=QUIET)
    assert Dataset(tmp_path / "out").info["annotations"] == {}


def renamed(root: Path, names: list[str], first: int) -> Path:
    """A dataset whose classes from number `first` on have these names."""
    import token_world

    known = token_world.MOVE_NAMES
    token_world.MOVE_NAMES = (*["none"] * first, *names)  # type: ignore[assignment]
    try:
        return write_tokens(root, [*videos("v", 1, first), *videos("w", 1, first + 1)])
    finally:
        token_world.MOVE_NAMES = known


def test_classes_of_one_name_become_one_and_the_others_get_new_numbers(tmp_path: Path) -> None:
    one = write_tokens(tmp_path / "one", [*videos("x", 2, 0), *videos("z", 2, 1)])  # 0 right, 1 down
    two = renamed(tmp_path / "two", ["left", "down", "spin"], 0)  # 0 left, 1 down
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["merge", str(one), str(two), "--out", str(out), "--classes-by-name", "--prefix",
                                    "--names", "a,b"])  # fmt: skip
    assert done.exit_code == 0, done.output
    merged = Dataset(out)
    names = {line["label"]: line["name"] for line in merged.annotations("classes").to_pylist()}
    assert names == {0: "right", 1: "down", 2: "left"} and whole(out)
    before = {f"{prefix}/{row.source}": name_of(root, row) for prefix, root in (("a", one), ("b", two))
              for row in Dataset(root).rows()}  # fmt: skip
    assert {row.source: names[row.label] for row in merged.rows()} == before
    assert {key: names[label] for key, label in merged.labels().items()} == before
    assert {line["key"]: names[line["label"]] for line in results(out)} == before
    assert merged.info["settings"]["derived"]["classes_by_name"] is True
    with pytest.raises(UsageError, match="--classes-by-name joins classes"):
        merge([str(one), str(two)], str(out), Union(by_name=True, without=frozenset({"labels"})), options=QUIET)
    unnamed = without_classes(tmp_path / "un", videos("y", 2))
    with pytest.raises(UsageError, match="has labels and no classes to join by name"):
        merge([str(one), str(unnamed)], str(tmp_path / "no"), Union(by_name=True), options=QUIET)


def test_pictures_are_counted_in_one_table_of_classes(tmp_path: Path) -> None:
    """One dataset has pictures alone and calls their classes `classes`; in the other these are those of its videos."""
    pictures = with_classes(tmp_path / "pictures", {"labels": ["cat", "dog"]}, still_images(4, (2, 2)))
    tables = {"labels": ["run", "jump"], "image_labels": ["dog", "fox"]}
    mixed = with_classes(tmp_path / "mixed", tables, [*videos("v", 1, 0), *videos("w", 1, 1), *still_images(2, (2, 2))])
    uris, out = [str(pictures), str(mixed)], tmp_path / "out"
    with pytest.raises(UsageError, match=r"annotation 'image_classes' does not go together: .*'cat'.*'dog'"):
        merge(uris, str(out), Union(("a/", "b/")), options=QUIET)
    merge(uris, str(out), Union(("a/", "b/"), by_name=True), options=QUIET)
    merged = Dataset(out)
    names = {kind: dict(zip(*merged.annotations(kind).to_pydict().values(), strict=True))
             for kind in ("classes", "image_classes")}  # fmt: skip
    assert names == {"classes": {0: "run", 1: "jump"}, "image_classes": {0: "cat", 1: "dog", 2: "fox"}}
    told = {row.source: names["image_classes" if row.source.endswith("png") else "classes"][row.label]
            for row in merged.rows()}  # fmt: skip
    assert told == {
        **{f"a/train/{i:04d}.png": ("cat", "dog")[i % 2] for i in range(4)},
        **{"b/v0.mp4": "run", "b/w0.mp4": "jump", "b/train/0000.png": "dog", "b/train/0001.png": "fox"},
    }
    assert {**merged.labels("labels"), **merged.labels("image_labels")} == {
        row.source: row.label for row in merged.rows()
    } and whole(out)
    gone = Union(("a/", "b/"), without=frozenset({"labels", "classes", "image_labels", "image_classes"}))
    merge(uris, str(tmp_path / "gone"), gone, options=QUIET)
    assert Dataset(tmp_path / "gone").info["annotations"] == {}


def with_classes(root: Path, tables: dict[str, list[str]], made: list[Video | Image]) -> Path:
    """A dataset with these tables of labels and the names of their classes; `image_labels` are those of the images."""

    def annotate(store: LocalStore, sources: list[Video | Image]) -> dict[str, Any]:
        found = {}
        for labels, names in tables.items():
            mine = [s for s in sources if len(tables) == 1 or isinstance(s, Image) == (labels == "image_labels")]
            lines = [{"source": s.key, "split": s.split, "label": s.label} for s in mine]
            classes = [{"label": number, "name": name} for number, name in enumerate(names)]
            for name, table in (
                (labels, pa.Table.from_pylist(lines, token_world.LABELS_SCHEMA)),
                (labels.replace("labels", "classes"), pa.Table.from_pylist(classes, SCHEMA)),
            ):
                found[name] = token_world._annotation(store, name, table)
        return found

    with patch("token_world._annotate", annotate):
        return write_tokens(root, [s for s in made if isinstance(s, Video)], [s for s in made if isinstance(s, Image)])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([(1, "left"), (1, "right")], "are numbered 1"),
        ([(1, "left"), (2, "left")], "are called 'left'"),
        ([(None, "left")], "a line without label or name"),
        ([(1, None)], "a line without label or name"),
        ([(2**31 - 1, "left"), (0, "right")], "no numbers are left"),
    ],
)
def test_classes_that_name_no_number_alone_are_not_joined_by_name(lines: list[Any], said: str, tmp_path: Path) -> None:
    dataset = Dataset(write_tokens(tmp_path / "one", videos("x", 1, 0)))
    tables = [
        pa.Table.from_pylist([{"label": label, "name": name} for label, name in told], SCHEMA)
        for told in ([(2**31 - 1, "spin"), (0, "right")], lines)
    ]
    with pytest.raises(UsageError, match=said):
        by_name([Input(dataset), Input(dataset)], [{"classes": table} for table in tables])


def name_of(root: Path, row: Row) -> str:
    classes = Dataset(root).annotations("classes").to_pylist()
    return next(line["name"] for line in classes if line["label"] == row.label)


def test_the_command_merges_packs_under_their_names(tmp_path: Path) -> None:
    one, two = world(tmp_path / "one", 6), world(tmp_path / "two", 9)
    pack(str(two), str(tmp_path / "packed"), 2_000, 0, QUIET)
    arguments = ["merge", str(one), str(tmp_path / "packed"), "--out", str(tmp_path / "out"), "--prefix"]
    assert "2 different prefixes" in str(CliRunner().invoke(cli, arguments).exception)
    done = CliRunner().invoke(cli, [*arguments, "--names", "a,b", "--name", "both", "--json"])
    assert done.exit_code == 0, done.output
    assert Dataset(tmp_path / "out").info["name"] == "both" and len(Dataset(tmp_path / "out")) == 15
    assert whole(tmp_path / "out")


def without_classes(root: Path, made: list[Video]) -> Path:
    """A dataset with labels whose classes nobody named."""
    real = token_world._annotate
    with patch("token_world._annotate", lambda *told: {k: v for k, v in real(*told).items() if k != "classes"}):
        return write_tokens(root, made)


def test_classes_of_one_dataset_never_name_labels_of_another(tmp_path: Path) -> None:
    named, unnamed = write_tokens(tmp_path / "named", videos("x", 2)), without_classes(tmp_path / "un", videos("y", 2))
    uris, out = [str(named), str(unnamed)], str(tmp_path / "out")
    for without in ((), ("classes",)):
        with pytest.raises(UsageError, match="--without labels --without classes"):
            merge(uris, out, Union(without=frozenset(without)), options=QUIET)
    with pytest.raises(UsageError, match="--without nosuch: no such annotation"):
        merge(uris, out, Union(without=frozenset({"nosuch"})), options=QUIET)
    merge(uris, out, Union(without=frozenset({"labels", "classes"})), options=QUIET)
    assert {row.label for row in Dataset(out).rows()} == {None}
    assert {line["label"] for line in results(out)} == {None} and whole(out)


@pytest.mark.parametrize("names", ["a,b/c", "a,..", "a,", "../..,x", "a,b c"])
def test_names_before_keys_lead_nowhere(names: str, tmp_path: Path) -> None:
    uris = [str(write_tokens(tmp_path / name, videos(name, 1))) for name in ("one", "two")]
    done = CliRunner().invoke(cli, ["merge", *uris, "--out", str(tmp_path / "out"), "--names", names])
    assert "is no name to put before keys" in str(done.exception) and not (tmp_path / "out").exists()


def test_of_a_shared_source_the_first_rows_that_there_are_come_along(tmp_path: Path) -> None:
    one, two = write_tokens(tmp_path / "one", videos("x", 1)), write_tokens(tmp_path / "two", videos("bad", 2))
    info = Dataset(one).info
    facts = {**{key: info[key] for key in ("tokenizer", "settings")}, "dataset": "world", "format_version": 1}
    failed = {
        **results(two)[0],
        "status": "quarantined",
        "reason": "timeout",
        "rows": 0,
        "tokens": 0,
        "run_lengths": [],
    }
    token_world._write_unit(LocalStore(one), "a" * 16, "train", [], [{**failed, "frames_kept": 0}], facts)
    write_tokens(one, videos("x", 1))
    merge([str(one), str(two)], str(tmp_path / "out"), Union(skip_shared=True), options=QUIET)
    assert {row.source for row in Dataset(tmp_path / "out").rows()} == {"x0.mp4", "bad0.mp4", "bad1.mp4"}
    assert whole(tmp_path / "out")


def test_lines_of_one_source_in_two_tables_are_one_or_refused() -> None:
    def table(label: int) -> pa.Table:
        return pa.table({"source": ["s.mp4", f"{label}.mp4"], "label": [label, label]})

    assert _of_sources("labels", [("a", table(1)), ("b", table(1))]).num_rows == 2
    with pytest.raises(UsageError, match="says two things of 's.mp4'.*--without labels"):
        _of_sources("labels", [("a", table(1)), ("b", table(2))])
