"""HowTo100M: its list, however the columns are called and the files lie, and what its videos show and say."""

import json
from pathlib import Path

import pytest
from archives import tar_of
from listings import dataset, keys, refusal, tree

from toto.tokenize.input_file import open_binary
from toto.tokenize.sources import howto100m_captions, list_sources
from toto.tokenize.sources.base import MISSING_SIZE

pytestmark = pytest.mark.usefixtures("cache")

OFFICIAL = """video_id,category_1,category_2,rank,task_id
nVbIUDjzWY4,Cars & Other Vehicles,Motorcycles,27,52907
-97kyZVWVG0,"Hobbies, and Crafts",Crafts,34,119814
_gkjnR3ZVts,Food and Entertaining,,6,25938
"""
TASKS = "id\ttask_name\n52907\tChange Motorcycle Oil\n25938\tMake Tea, Iced\n"
IDS = ("-97kyZVWVG0", "_gkjnR3ZVts", "nVbIUDjzWY4")


def howto(root: Path, *videos: str, **lists: str) -> Path:
    tree(root, *(videos or [f"{video}.mp4" for video in IDS]))
    return tree(root, **(lists or {"HowTo100M_v1.csv": OFFICIAL, "task_ids.csv": TASKS}))


@pytest.mark.parametrize(
    "videos",
    [
        pytest.param([f"{video}.mp4" for video in IDS], id="flat"),
        pytest.param([f"Food/{IDS[0]}.webm", f"deep/er/{IDS[1]}.mkv", f"{IDS[2]}.f137.mp4"], id="anywhere"),
    ],
)
def test_keys_are_ids_however_the_files_lie(tmp_path: Path, videos: list[str]) -> None:
    listing = list_sources(dataset(howto(tmp_path, *videos), "howto100m"))
    assert keys(listing) == list(IDS)
    assert all(s.size > 0 and (s.split, s.label, s.kind) == ("train", None, "video") for s in listing.sources)
    assert listing.ignored == {".csv": 2}


def test_videos_are_a_table_with_categories_rank_and_the_tasks_name(tmp_path: Path) -> None:
    rows = list_sources(dataset(howto(tmp_path), "howto100m")).annotations["videos"].to_pylist()
    assert rows[0] == {
        "source": "-97kyZVWVG0", "video_id": "-97kyZVWVG0", "category_1": "Hobbies, and Crafts",
        "category_2": "Crafts", "rank": 34, "task_id": 119814, "task": None,
    }  # fmt: skip
    assert [(row["category_2"], row["task"]) for row in rows[1:]] == [
        (None, "Make Tea, Iced"), ("Motorcycles", "Change Motorcycle Oil"),
    ]  # fmt: skip


def test_listed_video_that_is_not_there_is_missing_and_others_are_counted(tmp_path: Path) -> None:
    videos = (f"{IDS[1]}.mp4", f"again/{IDS[1]}.webm", "AAAAAAAAAAA.mp4")
    listing = list_sources(dataset(howto(tmp_path, *videos), "howto100m"))
    assert [s.size == MISSING_SIZE for s in listing.sources] == [True, False, True]
    assert listing.sources[1].uri == f"{tmp_path}/{IDS[1]}.mp4"
    assert listing.ignored == {".csv": 2, "(in no official list)": 1, "(another copy of a listed file)": 1}


@pytest.mark.parametrize("column", ["video_path", "path"])
def test_copies_of_the_list_may_say_where_a_video_lies(tmp_path: Path, column: str) -> None:
    rows = f"video_id,{column},task\n{IDS[2]},b/{IDS[2]}.mp4,52907\n{IDS[1]},../../etc/{IDS[1]}.mp4,\n"
    root = howto(tmp_path, f"a/{IDS[2]}.mp4", f"b/{IDS[2]}.mp4", f"b/{IDS[1]}.mp4", **{"mine.csv": rows})
    listing = list_sources(dataset(root, "howto100m"))
    assert [s.uri for s in listing.sources] == [f"{tmp_path}/b/{IDS[1]}.mp4", f"{tmp_path}/b/{IDS[2]}.mp4"]
    assert listing.annotations["videos"]["task_id"].to_pylist() == [None, 52907]


def test_list_of_paths_alone_gives_ids(tmp_path: Path) -> None:
    root = howto(tmp_path, f"x/{IDS[0]}.mp4", **{"train.csv": f"video_path\nx/{IDS[0]}.mp4\nx/.hidden.mp4\n"})
    listing = list_sources(dataset(root, "howto100m"))
    assert keys(listing) == [IDS[0]] and listing.ignored["(line of a list without a video)"] == 1


def test_without_a_list_every_video_is_taken_and_a_warning_says_where_to_get_it(tmp_path: Path) -> None:
    tree(tmp_path, f"{IDS[0]}.mp4", f"more/{IDS[1]}.webm", f"more/{IDS[0]}.mkv", "notes.pdf")
    listing = list_sources(dataset(tmp_path, "howto100m", homepage="https://example.org"))
    assert keys(listing) == [IDS[0], IDS[1]]
    assert listing.ignored == {".pdf": 1, "(another copy of a listed file)": 1}
    assert listing.warnings == (
        f"datasets.mine: no list for the videos (HowTo100M_v1.csv, looked for in {tmp_path} and its annotations/): "
        "every video here is taken (2); get it from https://example.org",
    )
    assert listing.annotations["videos"]["video_id"].to_pylist() == [IDS[0], IDS[1]]


def test_annotations_may_name_the_list_of_a_part(tmp_path: Path) -> None:
    part = tree(tmp_path / "lists", **{"part.csv": OFFICIAL.rsplit("\n", 3)[0]}) / "part.csv"
    listing = list_sources(dataset(howto(tmp_path / "videos"), "howto100m", annotations=str(part)))
    assert keys(listing) == [IDS[2]] and listing.ignored["(in no official list)"] == 2
    assert listing.annotations["videos"]["task"].to_pylist() == ["Change Motorcycle Oil"]  # from the root


def test_captions_become_a_table(tmp_path: Path) -> None:
    said = {
        IDS[2]: {"text": ["oil", "drain"], "start": [1.5, 4], "end": [4.0, 9.25]},
        IDS[1]: {"text": ["tea"], "start": []},
        "AAAAAAAAAAA": {"text": ["other"], "start": [0], "end": [1]},
    }
    root = tree(howto(tmp_path), **{"caption.json": json.dumps(said)})
    listing = list_sources(dataset(root, "howto100m"))
    assert listing.annotations["captions"].to_pylist() == [
        {"source": IDS[2], "start": 1.5, "end": 4.0, "text": "oil"},
        {"source": IDS[2], "start": 4.0, "end": 9.25, "text": "drain"},
    ]
    assert listing.ignored["(captions of a video that cannot be read)"] == 1


def test_captions_may_be_a_file_for_each_video_or_one_of_several(tmp_path: Path) -> None:
    root = tree(howto(tmp_path), **{"both.csv": f"end,start,task,text,video_id\n60,47,226,pick it,{IDS[0]}\n"})
    tree(root / "captions", **{f"{IDS[2]}.csv": 'start,end,text\n1.5,4,"oil, drain"\n', "AAAAAAAAAAA.csv": "x"})
    captions = list_sources(dataset(root, "howto100m")).annotations["captions"]
    assert captions.to_pylist() == [
        {"source": IDS[0], "start": 47.0, "end": 60.0, "text": "pick it"},
        {"source": IDS[2], "start": 1.5, "end": 4.0, "text": "oil, drain"},
    ]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_captions_of_gigabytes_are_counted_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(howto100m_captions, "MAX_BYTES", 100)
    long = (
        {"caption.json": "{" + " " * 100 + "}"} if form == "json" else {f"{v}.csv": "start,end,text\n" * 3 for v in IDS}
    )
    listing = list_sources(dataset(tree(howto(tmp_path), **long), "howto100m"))
    assert "captions" not in listing.annotations and len(listing.sources) == 3
    assert [count for what, count in listing.ignored.items() if what.startswith("(captions, more")] == [1]


def test_two_lists_and_no_videos_are_refused(tmp_path: Path) -> None:
    root = howto(tmp_path / "two", **{"a.csv": OFFICIAL, "b.csv": OFFICIAL})
    assert "both list videos" in refusal(dataset(root, "howto100m"))
    assert "no videos here (1 other file)" in refusal(dataset(tree(tmp_path / "x", "a.pdf"), "howto100m"))
    gone = dataset(tree(tmp_path / "y", **{"HowTo100M_v1.csv": OFFICIAL}), "howto100m", homepage="https://example.org")
    message = refusal(gone)
    assert "of 3 videos in the lists, none is here" in message and "https://example.org" in message


def shard(path: Path, *samples: tuple[str, dict[str, object] | None]) -> None:
    """A shard as video2dataset writes it: <key>.mp4, .txt and .json of each sample."""
    files = []
    for key, meta in samples:
        files.append((f"{key}.mp4", f"video {key}".encode()))
        if meta is not None:
            said = json.dumps({"key": key, "status": "success", **meta})
            files += [(f"{key}.txt", b"x"), (f"{key}.json", said.encode())]
    path.write_bytes(tar_of(files))


def test_shards_of_video2dataset_are_read_by_the_id_in_their_json(tmp_path: Path) -> None:
    root = howto(tmp_path, f"{IDS[1]}.mp4", **{"HowTo100M_v1.csv": OFFICIAL})
    shard(
        root / "00000.tar",
        ("0000000_00000", {"url": f"https://www.youtube.com/watch?v={IDS[2]}", "clips": [[0, 5]]}),
        ("0000000_00001", {"url": f"https://youtu.be/{IDS[2]}?t=1"}),
        ("0000001", {"url": "x", "yt_meta_dict": {"info": {"id": IDS[0]}}}),
        ("0000002", {"url": "https://www.youtube.com/watch?v=AAAAAAAAAAA"}),
    )
    listing = list_sources(dataset(root, "howto100m"))
    assert keys(listing) == [IDS[0], IDS[1], f"{IDS[2]}_00000", f"{IDS[2]}_00001"]
    assert listing.annotations["videos"]["video_id"].to_pylist() == [IDS[0], IDS[1], IDS[2], IDS[2]]
    assert listing.annotations["videos"]["rank"].to_pylist() == [34, 6, 27, 27]
    assert listing.ignored["(in no official list)"] == 1
    with open_binary(listing.sources[3].uri) as file:
        assert file.read() == b"video 0000000_00001"


def test_ids_in_json_are_read_however_much_json_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toto.tokenize.sources import texts

    monkeypatch.setattr(texts, "MAX_TABLE_BYTES", 10)
    shard(tmp_path / "00000.tar", ("000000000", {"url": f"https://www.youtube.com/watch?v={IDS[1]}"}))
    assert keys(list_sources(dataset(tmp_path, "howto100m"))) == [IDS[1]]


def test_shards_without_a_list_or_json_are_named_by_their_keys(tmp_path: Path) -> None:
    shard(tmp_path / "00000.tar", (IDS[0], None), ("000000014", {"url": "https://example.org/a.mp4"}))
    assert keys(list_sources(dataset(tmp_path, "howto100m"))) == [IDS[0], "000000014"]


def test_real_rows_of_the_list_are_read(media: Path, tmp_path: Path) -> None:
    tree(tmp_path, "_97kyZVWVG0.mp4")
    config = dataset(tmp_path, "howto100m", annotations=str(media / "annotations" / "howto100m"))
    listing = list_sources(config)
    assert len(listing.sources) == 4
    row = next(row for row in listing.annotations["videos"].to_pylist() if row["source"] == "_97kyZVWVG0")
    assert (row["category_1"], row["rank"], row["task_id"]) == ("Hobbies and Crafts", 34, 119814)
