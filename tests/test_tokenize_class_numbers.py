"""Class numbers: those of a dataset's own lists stay as they are, and no two classes become one in a later run."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from footage import numbered, write
from listings import dataset
from made import make

from toto import Dataset
from toto.shards.annotation_file import write_annotation
from toto.shards.store import open_store
from toto.tokenize.annotations import with_known_classes
from toto.tokenize.sources import list_sources

STEMS = [f"abcdefghij{letter}_000001_000011" for letter in "ABCDEF"]


def write_list(root: Path, *lines: str) -> Path:
    """Kinetics' list of `path label` for its validation split."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / "val.csv").write_text("".join(f"{line}\n" for line in lines))
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Six clips directly in val/, of labels 0, 2 and 5 in turn."""
    (tmp_path / "kinetics" / "val").mkdir(parents=True)
    for stem in STEMS:
        write(tmp_path / "kinetics" / "val" / f"{stem}.mov", numbered(4))
    return write_list(tmp_path / "kinetics", *(f"val/{stem}.mp4 {(0, 2, 5)[i % 3]}" for i, stem in enumerate(STEMS)))


def labels_of(made: Dataset) -> dict[str, dict[str, int]]:
    """Source -> label, by the rows and by the annotations."""
    return {
        "rows": {row.source: row.label for row in made.rows()},
        "annotations": {line["source"]: line["label"] for line in made.annotations("labels").to_pylist()},
    }


def test_labels_of_clips_that_lie_flat_are_the_lists_in_every_run(flat: Path, tmp_path: Path) -> None:
    expected = {f"val/{stem}": (0, 2, 5)[i % 3] for i, stem in enumerate(STEMS)}
    for _ in range(2):
        found = make(flat, tmp_path / "set", layout="kinetics")
        assert labels_of(found) == {"rows": expected, "annotations": expected}
        classes = [{"label": number, "name": str(number)} for number in (0, 2, 5)]
        assert found.annotations("classes").to_pylist() == classes


def test_a_class_that_a_longer_list_names_keeps_the_lists_number(flat: Path, tmp_path: Path) -> None:
    write_list(flat, f"val/{STEMS[0]}.mp4 0", f"val/{STEMS[1]}.mp4 5")
    make(flat, tmp_path / "set", layout="kinetics")
    write_list(flat, f"val/{STEMS[0]}.mp4 0", f"val/{STEMS[1]}.mp4 5", f"val/{STEMS[2]}.mp4 3")
    found = labels_of(make(flat, tmp_path / "set", layout="kinetics"))
    assert found["rows"] == found["annotations"] == {f"val/{STEMS[0]}": 0, f"val/{STEMS[1]}": 5, f"val/{STEMS[2]}": 3}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("val/riding/{}.mp4 4", "val/diving/{}.mp4 1"), {4: "riding", 1: "diving"}),
        (("val/{}.mp4 4", "val/{}.mp4 1"), {4: "4", 1: "1"}),
        (("{}.mp4 4", "{}.mp4 1"), {4: "4", 1: "1"}),
        (("val/riding/{}.mp4 4", "val/riding/{}.mp4 1", "val/diving/{}.mp4 1"), {4: "4", 1: "1"}),
        (("val/riding/{}.mp4 4", "val/diving/{}.mp4 1", "other/{}.mp4 1"), {4: "4", 1: "1"}),
    ],
)
def test_a_class_is_named_by_its_folder_only_where_each_has_its_own(
    paths: tuple[str, ...], names: dict[int, str], flat: Path
) -> None:
    write_list(flat, *(path.format(stem) for path, stem in zip(paths, STEMS, strict=False)))
    listing = list_sources(dataset(flat, "kinetics"))
    found = listing.annotations["classes"].to_pylist()
    assert found == [{"label": number, "name": names[number]} for number in sorted(names)]


def test_classes_that_share_a_name_are_never_merged(flat: Path, tmp_path: Path) -> None:
    listing = list_sources(dataset(flat, "kinetics"))
    store = open_store(tmp_path / "set")
    classes = listing.annotations["classes"]
    same = classes.set_column(1, "name", pa.array(["val"] * len(classes)))
    before = {"classes": write_annotation(store, "classes", same)}
    for numbered_by_list in (True, False):
        asked = replace(listing, numbered=numbered_by_list)
        found = with_known_classes(store, before, asked)
        assert [s.label for s in found.sources] == [s.label for s in listing.sources]
        assert found.annotations["classes"].equals(classes)
