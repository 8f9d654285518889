"""CATER: one set's videos, with every task's labels, and where the snitch is at every frame."""

import json
from pathlib import Path
from typing import Any

import pytest
from archives import tar_of
from listings import dataset, keys, refusal, tree

from toto.errors import UsageError
from toto.tokenize.input_file import open_binary
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.cater_scenes import cell

GOLDEN = Path(__file__).parent / "golden" / "cater"
LISTS = {
    "localize/train.txt": "CATER_new_000000.avi 14\nCATER_new_000002.avi 35\n",
    "localize/train_subsetT.txt": "CATER_new_000000.avi 14\n",
    "localize/train_subsetV.txt": "CATER_new_000002.avi 35\n",
    "localize/val.txt": "CATER_new_000001.avi 0\n",
    "actions_present/train.txt": "CATER_new_000000.avi 2,4,11\nCATER_new_000002.avi 0\n",
    "actions_present/val.txt": "CATER_new_000001.avi 0,13\n",
    "actions_order_uniq/val.txt": "CATER_new_000001.avi 12,300\n",
}


def scene(*places: tuple[float, float, float]) -> str:
    """A scene file of a cone and the snitch, frames not in order."""
    locations = {str(frame): list(place) for frame, place in reversed(list(enumerate(places)))}
    cone = {"shape": "cone", "instance": "Cone_0", "locations": {"0": [0, 0, 0]}}
    return json.dumps({"objects": [cone, {"shape": "spl", "instance": "Spl_0", "locations": locations}]})


def cater(root: Path, count: int = 3, lists: dict[str, str] | None = None, **scenes: str) -> Path:
    """A set's folder."""
    tree(root, *(f"videos/CATER_new_{number:06d}.avi" for number in range(count)))
    tree(root / "lists", **(LISTS if lists is None else lists))
    for name, text in scenes.items():
        tree(root / "scenes", **{f"CATER_new_{name}.json": text})
    return root


def test_sources_are_the_lists_videos_with_the_cell_of_6_by_6_as_label(tmp_path: Path) -> None:
    cater(tmp_path / "all_actions")
    listing = list_sources(dataset(tmp_path, "cater"))
    assert [(s.key, s.split, s.label, s.size > 0) for s in listing.sources] == [
        ("CATER_new_000000", "train", 14, True),
        ("CATER_new_000002", "train", 35, True),
        ("CATER_new_000001", "val", 0, True),
    ]
    assert listing.annotations["labels"]["name"].to_pylist() == [
        "column 2, row 2",
        "column 5, row 5",
        "column 0, row 0",
    ]
    assert listing.annotations["classes"].num_rows == 36 and "snitch" not in listing.annotations
    assert list_sources(dataset(tmp_path / "all_actions", "cater")).sources == listing.sources
    assert keys(list_sources(dataset(tmp_path, "cater", split=("val",)))) == ["CATER_new_000001"]


def test_table_of_lists_has_every_task_with_all_labels_and_the_subsets_of_train(tmp_path: Path) -> None:
    rows = list_sources(dataset(cater(tmp_path), "cater")).annotations["lists"].to_pylist()
    assert [(r["task"], r["source"][-2:], r["split"], r["subset"], r["labels"]) for r in rows] == [
        ("localize", "00", "train", "T", [14]),
        ("localize", "02", "train", "V", [35]),
        ("localize", "01", "val", None, [0]),
        ("actions_present", "00", "train", None, [2, 4, 11]),
        ("actions_present", "02", "train", None, [0]),
        ("actions_present", "01", "val", None, [0, 13]),
        ("actions_order_uniq", "01", "val", None, [12, 300]),
    ]


def test_snitch_is_a_table_of_places_and_cells_at_every_frame(tmp_path: Path) -> None:
    root = cater(tmp_path, **{"000001": scene((0.0, 2.5, 0.3), (1.5, -0.5, 0.3), (-3.0, -3.0, 0.3))})
    listing = list_sources(dataset(root, "cater"))
    assert listing.annotations["snitch"].to_pylist() == [
        {"source": "CATER_new_000001", "frame": 0, "x": 0.0, "y": 2.5, "z": 0.3, "cell": 33},
        {"source": "CATER_new_000001", "frame": 1, "x": 1.5, "y": -0.5, "z": 0.3, "cell": 16},
        {"source": "CATER_new_000001", "frame": 2, "x": -3.0, "y": -3.0, "z": 0.3, "cell": 0},
    ]
    assert listing.ignored == {".txt": 7, "(video without a scene)": 2}


def test_labels_are_the_official_ones_and_only_those_over_the_edge_are_put_back(tmp_path: Path) -> None:
    scenes = json.loads((GOLDEN / "scenes.json").read_text())
    official = json.loads((GOLDEN / "labels.json").read_text())
    root = tree(tmp_path, *(f"videos/{name}" for name in scenes))
    for name, content in scenes.items():
        tree(root / "scenes", **{name.replace(".avi", ".json"): json.dumps(content)})
    for task, found in official.items():
        lines = "".join(f"{name} {label}\n" for name, label in found["labels"].items())
        tree(root / "lists" / task, **{"val.txt": lines})
    listing = list_sources(dataset(root, "cater"))
    wanted = official["localize"]["labels"] | {
        "CATER_new_000010.avi": 23, "CATER_new_000011.avi": 33, "CATER_new_000012.avi": 18,
    }  # fmt: skip
    assert {f"{s.key}.avi": s.label for s in listing.sources} == wanted
    assert listing.ignored["(label at the edge, put back inside the grid)"] == 3
    assert "(label other than its scene's)" not in listing.ignored
    verbatim = {(r["task"], f"{r['source']}.avi"): r["labels"] for r in listing.annotations["lists"].to_pylist()}
    assert verbatim == {(task, name): [v] for task, found in official.items() for name, v in found["labels"].items()}
    last: dict[str, dict[str, Any]] = {row["source"]: row for row in listing.annotations["snitch"].to_pylist()}
    halves = {"localize": 3, "localize_4x4": 2, "localize_8x8": 4}
    for (task, name), (label,) in verbatim.items():  # the official formula, edge and all, from the stored places
        row = last[name.removesuffix(".avi")]
        assert cell(row["x"], row["y"], halves[task], inside=False) == label
    assert {f"{source}.avi": row["cell"] for source, row in last.items()} == wanted


def test_label_that_no_grid_has_is_null_and_one_that_its_scene_denies_is_counted(tmp_path: Path) -> None:
    lists = {"localize/val.txt": "CATER_new_000000.avi 39\nCATER_new_000001.avi 7\n"}
    root = cater(tmp_path, 2, lists, **{"000001": scene((0.0, 0.0, 0.3))})
    listing = list_sources(dataset(root, "cater"))
    assert [s.label for s in listing.sources] == [None, 7]
    assert listing.ignored["(label outside the grid)"] == listing.ignored["(label other than its scene's)"] == 1


def test_damaged_scenes_are_counted(tmp_path: Path) -> None:
    damaged = {"000000": "{", "000001": '{"objects": []}', "000002": scene()}
    listing = list_sources(dataset(cater(tmp_path, **damaged), "cater"))
    assert listing.ignored["(scene that cannot be read)"] == 3 and len(listing.sources) == 3


def test_several_sets_need_a_variant(tmp_path: Path) -> None:
    cater(tmp_path / "all_actions")
    cater(tmp_path / "max2action_cameramotion", 2)
    assert "all_actions, max2action_cameramotion, with the same names" in refusal(
        dataset(tmp_path, "cater"), UsageError
    )
    listing = list_sources(dataset(tmp_path, "cater", variant="max2action_cameramotion"))
    assert listing.sources[0].uri == f"{tmp_path}/max2action_cameramotion/videos/CATER_new_000000.avi"
    assert listing.sources[1].size == MISSING_SIZE and listing.ignored["(of another set)"] == 3
    assert "max2action is not in" in refusal(dataset(tmp_path, "cater", variant="max2action"), UsageError)
    assert "did you mean 'all_actions'" in refusal(dataset(tmp_path, "cater", variant="all_action"), UsageError)
    own = dataset(tmp_path / "all_actions", "cater", variant="max2action")
    assert "there is all_actions" in refusal(own, UsageError)


def test_lists_of_actions_alone_give_sources_without_labels(tmp_path: Path) -> None:
    lists = {
        "actions_present/train.txt": "CATER_new_000000.avi 2,4,11\nout/CATER_new_000001.avi 3\nCATER_new_9.avi x\n"
    }
    listing = list_sources(dataset(cater(tmp_path, 3, lists), "cater"))
    assert [(s.key, s.label) for s in listing.sources] == [("CATER_new_000000", None), ("CATER_new_000001", None)]
    assert listing.ignored == {
        ".txt": 1, "(in no official list)": 1, "(line of a list without a video)": 1,
    }  # fmt: skip


def test_a_list_of_several_that_is_not_there_is_named(tmp_path: Path) -> None:
    lists = {name: text for name, text in LISTS.items() if name != "localize/val.txt"}
    listing = list_sources(dataset(cater(tmp_path, lists=lists), "cater"))
    assert (listing.sources[2].key, listing.sources[2].label) == ("CATER_new_000001", None)
    assert [warning.split(", looked")[0] for warning in listing.warnings] == [
        "datasets.mine: no list for split val of localize (lists/localize/val.txt",
        "datasets.mine: no list for split train of actions_order_uniq (lists/actions_order_uniq/train.txt",
    ]
    assert "its videos have no label" in listing.warnings[0] and "table `lists`" in listing.warnings[1]
    assert "actions" in list_sources(dataset(tmp_path, "cater", split=("train",))).warnings[0]
    for name in ("actions_present", "actions_order_uniq"):
        (tmp_path / "lists" / name / "val.txt").unlink()
    (warning,) = list_sources(dataset(tmp_path, "cater")).warnings
    assert "no list for split val of localize" in warning and "its videos are left out" in warning


@pytest.mark.usefixtures("cache")
def test_videos_and_scenes_are_read_where_they_lie_in_tars(tmp_path: Path) -> None:
    track = scene((0.0, 2.5, 0.3), (-3.0, -3.0, 0.3))
    loose = list_sources(dataset(cater(tmp_path / "loose", **{"000001": track}), "cater"))
    root = tree(tmp_path / "packed" / "all_actions" / "lists", **LISTS).parent
    videos = {f"CATER_new_{number:06d}.avi": f"video {number}".encode() for number in range(3)}
    (root / "videos.tar").write_bytes(tar_of(videos))
    (root / "scenes.tar").write_bytes(tar_of({"scenes/CATER_new_000001.json": track.encode()}))
    listing = list_sources(dataset(tmp_path / "packed", "cater"))
    assert [(s.key, s.split, s.label) for s in listing.sources] == [(s.key, s.split, s.label) for s in loose.sources]
    assert listing.annotations == loose.annotations
    with open_binary(listing.sources[2].uri) as file:
        assert file.read() == b"video 1"


def test_split_that_lists_disagree_on_is_the_first_lists(tmp_path: Path) -> None:
    lists = {"localize/train.txt": "CATER_new_000000.avi 3\n", "actions_present/val.txt": "CATER_new_000000.avi 3\n"}
    listing = list_sources(dataset(cater(tmp_path, 1, lists), "cater"))
    assert [s.split for s in listing.sources] == ["train"]
    assert listing.ignored["(line that puts a video into another split)"] == 1


def test_lists_may_lie_elsewhere_and_are_asked_for_when_they_lie_nowhere(tmp_path: Path) -> None:
    lists = tree(tmp_path / "elsewhere", **LISTS)
    root = tree(tmp_path / "set", "videos/CATER_new_000000.avi")
    assert len(list_sources(dataset(root, "cater", annotations=str(lists))).sources) == 3
    message = refusal(dataset(root, "cater", homepage="https://example.org"))
    assert "lists/<task>/train.txt" in message and "https://example.org" in message


@pytest.mark.parametrize("half", [2, 3, 4])
def test_every_place_on_the_table_is_in_the_grid(half: int) -> None:
    places = [(x / 4, y / 4) for x in range(-13, 14) for y in range(-13, 14)]
    cells = {cell(x, y, half) for x, y in places}
    assert cells == set(range(4 * half * half))
