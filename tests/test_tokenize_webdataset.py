"""webdataset shards: one source for each sample, its texts as annotations, and nothing that was tried is forgotten."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archives import tar_of
from clips import write_image, write_video
from made import make

from toto import Dataset
from toto.config import DatasetConfig
from toto.errors import UsageError, UserError
from toto.shards.parquet import parquet_bytes
from toto.tokenize.cli import resolve
from toto.tokenize.input_file import open_binary
from toto.tokenize.part import parse_part
from toto.tokenize.run import Options, tokenize
from toto.tokenize.sources import Listing, list_sources, texts

pytestmark = pytest.mark.usefixtures("cache")


def listing(root: Path | str, **more: Any) -> Listing:
    return list_sources(DatasetConfig(name="mine", layout="webdataset", root=str(root), **more))


def shards(root: Path, tars: Mapping[str, Mapping[str, bytes]], **files: bytes) -> Path:
    """Writes tars by name, and other files beside them."""
    for name, contents in tars.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(tar_of(dict(contents)))
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


def keys(found: Listing) -> list[str]:
    return [source.key for source in found.sources]


def refusal(root: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        listing(root, **more)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def statuses(rows: Mapping[str, tuple[str, str | None]]) -> bytes:
    """The table that video2dataset writes beside a shard (some of its columns)."""
    columns = {
        "url": [f"https://example.org/{key}" for key in rows],
        "key": list(rows),
        "status": [status for status, _ in rows.values()],
        "error_message": pa.array([message for _, message in rows.values()], pa.string()),
    }
    return parquet_bytes(pa.table(columns))


# Samples


def test_a_sample_is_what_shares_the_name_up_to_the_first_dot(tmp_path: Path) -> None:
    tar = {
        "0001.mp4": b"one", "0001.txt": b"a caption", "0001.json": b'{"a": 1}', "0001.m4a": b"sound",
        "sub/dir.v2/0002.left.JPG": b"two", "sub/dir.v2/0002.right.jpg": b"other eye", "0000.webm": b"zero",
        "README": b"", ".hidden.mp4": b"", "0003.txt": b"nothing to see",
    }  # fmt: skip
    found = listing(shards(tmp_path, {"00000.tar": tar}))
    assert [(s.key, s.kind, s.size, s.split) for s in found.sources] == [
        ("00000/0000", "video", 4, "all"), ("00000/0001", "video", 3, "all"),
        ("00000/sub/dir.v2/0002", "image", 3, "all"),
    ]  # fmt: skip
    for source, content in zip(found.sources, (b"zero", b"one", b"two"), strict=True):
        with open_binary(source.uri) as file:
            assert file.read() == content
    assert found.ignored == {
        ".m4a": 1, "(no suffix)": 1, "(further media of a sample)": 1, "(sample without a video or picture)": 1,
    }  # fmt: skip


def test_a_video_counts_before_a_picture_of_the_same_sample(tmp_path: Path) -> None:
    tar = {"a.jpg": b"thumbnail", "a.mp4": b"video", "b.png": b"p", "b.jpg": b"j", "a.MP4": b"last"}
    found = listing(shards(tmp_path, {"0.tar": tar}))
    assert [(source.kind, source.size) for source in found.sources] == [("video", 4), ("image", 1)]
    assert found.ignored == {"(further media of a sample)": 2, "(second file of a sample with one suffix)": 1}


def test_shards_with_the_same_keys_and_clips_of_one_video_stay_apart(tmp_path: Path) -> None:
    tar = {"0000008_00000.mp4": b"", "0000008_00001.mp4": b""}
    found = listing(
        shards(tmp_path, {"00000.tar": tar, "part/00000.tar": tar, "part.tar": {"00000/0000008_00000.mp4": b""}})
    )
    assert keys(found) == [
        "00000/0000008_00000", "00000/0000008_00001", "part/00000/0000008_00000", "part/00000/0000008_00001",
    ]  # fmt: skip
    assert found.ignored == {"(second sample of one key)": 1}


def test_folders_named_by_splits_are_splits(tmp_path: Path) -> None:
    tars = {f"{split}/00000.tar": {"a.mp4": b"x"} for split in ("train", "val", "test", "other")}
    found = listing(shards(tmp_path, tars))
    assert [(source.key, source.split) for source in found.sources] == [
        ("train/00000/a", "train"), ("val/00000/a", "val"), ("test/00000/a", "test"),
    ]  # fmt: skip
    assert found.ignored == {"(shard in none of the folders train, val, test)": 1}
    assert keys(listing(tmp_path, split=("val",))) == ["val/00000/a"]
    with pytest.raises(UsageError, match="unknown split 'all'"):
        listing(tmp_path, split=("all",))


def test_held_out_clips_of_one_video_go_the_same_way(tmp_path: Path) -> None:
    tar = {f"{video:07d}_{clip:05d}.mp4": b"x" for video in range(60) for clip in range(3)}
    found = listing(shards(tmp_path, {"00000.tar": tar | {"n01_00001.mp4": b"x"}}), held_out=0.3)
    split = {source.key: source.split for source in found.sources}
    videos = {key[:13]: {split[k] for k in split if k.startswith(key[:13])} for key in split}
    assert all(len(splits) == 1 for splits in videos.values()) and set(split.values()) == {"train", "val"}
    assert keys(listing(tmp_path, held_out=0.3, split=("val",))) == sorted(k for k, s in split.items() if s == "val")


def test_samples_that_were_tried_and_failed_are_counted_by_what_went_wrong(tmp_path: Path) -> None:
    rows: dict[str, tuple[str, str | None]] = {
        "000": ("success", None), "001": ("failed_to_download", "HTTP Error 404: Not Found"),
        "002": ("failed_to_download", "HTTP Error 404: Not Found"), "003": ("failed_to_subsample", None),
        "004": ("failed_to_download", "<urlopen\nerror timed out>"),
    }  # fmt: skip
    tar = {"000.mp4": b"x", "000.json": b"{}", "003.json": b"{}", "003.txt": b"", "005.json": b"{}"}
    root = shards(tmp_path, {"00000.tar": tar, "00001.tar": {"000.mp4": b"y"}})
    (root / "00000.parquet").write_bytes(statuses(rows))
    (root / "00000_stats.json").write_text("{}")
    (root / "00001.parquet").write_bytes(b"PAR1 no")
    (root / "elsewhere.parquet").write_bytes(statuses(rows))
    found = listing(root)
    assert keys(found) == ["00000/000", "00001/000"]
    assert found.ignored == {
        ".json": 1,
        "(failed_to_download: HTTP Error 404: Not Found)": 2,
        "(failed_to_download: <urlopen error timed out>)": 1,
        "(failed_to_subsample)": 1,
        "(sample without a video or picture)": 1,
        "(table beside a shard that cannot be read)": 1,
    }


def test_messages_that_are_all_different_are_counted_together(tmp_path: Path) -> None:
    rows = {f"{i:03d}": ("failed_to_download", f"https://example.org/{i} is away") for i in range(100)}
    root = shards(tmp_path, {"0.tar": {"x.mp4": b"x"}}, **{"0.parquet": statuses(rows)})
    found = listing(root).ignored
    assert sum(found.values()) == 100 and len(found) == 21 and found["(failed_to_download)"] == 80


# Texts and labels


def test_captions_and_metadata_are_tables_of_their_sources(tmp_path: Path) -> None:
    meta = json.dumps({"caption": "ein Hund ⚑", "clips": [[0, 1.5]]}, ensure_ascii=False, indent=1)
    tar = {
        "b.mp4": b"x", "b.json": meta.encode(), "b.txt": "ein Hund ⚑".encode(),
        "a.mp4": b"x", "a.txt": b"a cat\n", "c.mp4": b"x", "c.txt": b"caf\xe9", "d.json": b"{}",
    }  # fmt: skip
    found = listing(shards(tmp_path, {"0.tar": tar}))
    assert found.annotations["captions"].to_pylist() == [
        {"source": "0/a", "text": "a cat\n"}, {"source": "0/b", "text": "ein Hund ⚑"},
    ]  # fmt: skip
    assert found.annotations["meta"].to_pylist() == [{"source": "0/b", "json": meta}]
    assert set(found.annotations) == {"captions", "meta"}
    assert found.ignored == {"(text that is not UTF-8)": 1, "(sample without a video or picture)": 1}


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    mark, tar = b"\xef\xbb\xbf", dict[str, bytes]()
    for number in (0, 2, 10):
        tar |= {f"k{number}.mp4": b"x", f"k{number}.cls": mark + b"%d\r\n" % number}
    found = listing(shards(tmp_path, {"0.tar": tar | {"k0.txt": mark + "näh".encode(), "k0.json": mark + b"{}"}}))
    assert {source.key: source.label for source in found.sources} == {"0/k0": 0, "0/k2": 2, "0/k10": 10}
    assert found.annotations["captions"]["text"].to_pylist() == ["näh"]
    assert found.annotations["meta"]["json"].to_pylist() == ["{}"]


def test_texts_are_bounded_one_by_one_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = {"a.mp4": b"x", "a.json": b"x" * (2**20 + 1), "b.mp4": b"x", "b.json": b"{}", "b.txt": b"short"}
    root = shards(tmp_path, {"0.tar": tar})
    found = listing(root)
    assert found.annotations["meta"]["source"].to_pylist() == ["0/b"]
    assert found.ignored == {"(.json of more than 1 MiB)": 1}
    monkeypatch.setattr(texts, "MAX_TABLE_BYTES", 1)
    found = listing(root)
    assert not found.annotations and len(found.sources) == 2
    assert found.ignored == {
        "(.json of more than 1 MiB)": 1, "(.json, more than 256 MiB in all)": 1, "(.txt, more than 256 MiB in all)": 1,
    }  # fmt: skip


def test_numbers_in_cls_files_are_the_labels_and_keep_their_meaning(tmp_path: Path) -> None:
    tar = {f"{i}.jpg": b"x" for i in range(4)} | {"0.cls": b"7", "1.cls": b"2\n", "2.cls": b"7"}
    found = listing(shards(tmp_path, {"0.tar": tar}))
    assert [source.label for source in found.sources] == [7, 2, 7, None]
    assert found.annotations["classes"]["name"].to_pylist() == [str(i) for i in range(8)]
    assert found.annotations["labels"]["name"].to_pylist() == ["7", "2", "7", None]


def test_words_in_cls_files_are_classes_in_their_order(tmp_path: Path) -> None:
    tar = {f"{i}.jpg": b"x" for i in range(3)} | {"0.cls": b"dog", "1.cls": b"cat", "2.cls": b"11"}
    found = listing(shards(tmp_path, {"0.tar": tar}))
    assert [source.label for source in found.sources] == [2, 1, 0]
    assert found.annotations["classes"]["name"].to_pylist() == ["11", "cat", "dog"]


@pytest.mark.parametrize("more", [{}, {"held_out": 0.5}])
def test_words_in_cls_files_have_one_number_whichever_split_is_chosen(more: dict[str, float], tmp_path: Path) -> None:
    folders = ("", "", "") if more else ("train/", "val/", "train/")
    for number, (folder, word) in enumerate(zip(folders, (b"ape", b"bee", b"cat"), strict=True)):
        pictures = {f"{n}.png": b"" for n in range(9)}
        shards(tmp_path, {f"{folder}{number}.tar": pictures | {"0.cls": word, "1.cls": b"emu"}})
    whole = {source.key: source.label for source in listing(tmp_path, **more).sources}
    assert {*whole.values()} == {0, 1, 2, 3, None}
    for split in ("train", "val"):
        part = {source.key: source.label for source in listing(tmp_path, split=(split,), **more).sources}
        assert part and part.items() <= whole.items() and {*part.values()} > {None}


def test_shards_are_read_once_texts_included(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shards(tmp_path, {"0.tar": {"a.mp4": b"x", "a.txt": b"first", "a.cls": b"1"}})
    first = listing(root)
    opened: list[str] = []
    monkeypatch.setattr("toto.tokenize.sources.texts.Ranges", lambda uri, size: opened.append(uri))
    monkeypatch.setattr("toto.tokenize.sources.tar_index.Ranges", lambda uri, size: opened.append(uri))
    again = listing(root)
    assert again.sources == first.sources and again.annotations == first.annotations and not opened


def test_shards_in_a_bucket_list_like_local_ones(bucket: Any, tmp_path: Path) -> None:
    tars = {
        f"{i}.tar": {f"{j}.{suffix}": f"{i}{j}".encode() for j in range(3) for suffix in ("mp4", "txt", "json")}
        for i in "ab"
    }
    shards(tmp_path, tars, **{"a.parquet": statuses({"1": ("failed", "away")})})
    for path in tmp_path.iterdir():
        bucket.pipe(f"/bucket/set/{path.name}", path.read_bytes())
    there, here = listing("memory://bucket/set"), listing(tmp_path)
    assert keys(there) == keys(here) and len(keys(here)) == 5
    assert there.annotations == here.annotations and there.ignored == here.ignored == {"(failed: away)": 1}


# What does not help


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.mp4": b"x"}, "no .tar shards here (1 other file)"),
        ({"0.tar": tar_of({"a.txt": b"x"})}, "no videos or pictures in its 1 shard"),
        ({"0.tar": tar_of({"a.mp4": b"x"}), "1.tar.gz": b""}, "1.tar.gz: a compressed tar cannot be read at random"),
        ({"0.tar": tar_of({"a.mp4": b"x"}, mode="w:gz")}, "0.tar: a compressed tar cannot be read at random"),
    ],
)
def test_what_cannot_be_read_as_shards_is_refused(files: dict[str, bytes], problem: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    assert problem in refusal(tmp_path)


def test_a_damaged_shard_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    root = shards(tmp_path, {"0.tar": {"a.mp4": b"x", "b.mp4": b"y" * 600}, "1.tar": {"a.mp4": b"x"}})
    whole = (root / "0.tar").read_bytes()
    (root / "0.tar").write_bytes(whole[: 3 * 512 + 100])
    (root / "2.tar").write_bytes(b"no tar " * 100)
    found = listing(root)
    assert [(source.key, source.size) for source in found.sources] == [("0/a", 1), ("0/b", 100), ("1/a", 1)]
    assert found.ignored == {"(tar cut short)": 1, "(damaged tar)": 1}


# To the end


def test_a_real_shard_becomes_a_dataset_videos_pictures_captions_and_all(media: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "00000.tar").symlink_to(media / "shards" / "return_all_test.tar")
    video, picture = write_video(tmp_path / "v.mp4", 40), write_image(tmp_path / "p.png")
    tar = {"a.mp4": video.read_bytes(), "a.cls": b"1", "b.png": picture.read_bytes(), "c.mp4": video.read_bytes()[:300]}
    shards(root, {"00001.tar": tar})
    sets = ("layout=webdataset", f"root={root}", "resolution=32", "min_frames=16", "stride=10", "max_bad_fraction=1")
    target = resolve("folder", "dct-512", str(tmp_path / "set"), tuple(f"datasets.folder.{s}" for s in sets), ())
    result = tokenize(target.config, target.job, Options("local", quiet=True))
    assert result.failure is None
    dataset = Dataset(tmp_path / "set")
    frames: dict[str, list[int]] = {}
    for row in dataset.rows():
        frames.setdefault(row.source, []).append(row.n_frames)
    kinds = {row.source: row.record.kind for row in dataset.rows()}
    assert frames == {
        "00000/000000014": [1], "00000/000000025": [1], "00000/000000356": [1], "00000/0000008_00001": [72],
        "00000/0000038_00003": [20], "00001/b": [1],
    }  # fmt: skip
    assert {key for key, kind in kinds.items() if kind == 3} == {key for key, counts in frames.items() if counts == [1]}
    quarantine = {row["key"]: row["reason"] for row in dataset.quarantine().to_pylist()}
    assert quarantine == {"00000/0000030_00005": "too_short", "00001/a": "too_short", "00001/c": "open_error"}
    captions = {row["source"]: row["text"] for row in dataset.annotations("captions").to_pylist()}
    assert captions["00000/000000025"] == "Get RugbyFit with James Haskell" and len(captions) == 6
    details = json.loads(dataset.annotations("meta")["json"][0].as_py())
    assert details["key"] == "000000014" and details["status"] == "success"
    sources = {source.key: parse_part(source.uri) for source in list_sources(target.config).sources}
    part = sources["00001/b"]
    assert part is not None and (root / "00001.tar").read_bytes()[part.offset :][: part.size] == picture.read_bytes()


def test_a_run_over_a_split_without_texts_leaves_the_tables_of_the_others(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "a.png").read_bytes()
    tars = {
        "train/0.tar": {"a.png": picture, "a.txt": b"a word", "a.cls": b"1"},
        "val/0.tar": {"b.png": picture},
    }
    root = shards(tmp_path / "shards", tars)
    whole = make(root, tmp_path / "set", layout="webdataset", stride=4)
    tables = {name: whole.annotations(name).to_pylist() for name in ("captions", "labels", "classes")}
    again = make(root, tmp_path / "set", layout="webdataset", stride=4, split=("val",))
    assert again.annotations("captions").to_pylist() == [{"source": "train/0/a", "text": "a word"}]
    assert {name: again.annotations(name).to_pylist() for name in tables} == tables
