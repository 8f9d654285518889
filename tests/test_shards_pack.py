"""pack: the same rows in even files and another order; killed, doubled, on a full disk, on a remote store."""

import json
import os
import random
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import token_world
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from rewrites import QUIET, in_child, killed_after, killing_at, results, rows, whole, world, worlds
from small_disk import Disk, small_disk  # noqa: F401
from token_world import Video, still_images, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.cli import cli
from toto.shards.hashing import content_hash
from toto.shards.ids import to_ids
from toto.shards.leftovers import clean
from toto.shards.reader import ShardReader
from toto.shards.recipe import make_recipe
from toto.shards.rewrite.copying import RowCopier
from toto.shards.rewrite.derive import Options
from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.pack import pack
from toto.shards.row_hash import RowSum, row_hashes
from toto.shards.schema import RowRecord, row_id, row_schema, rows_to_batch
from toto.shards.snapshot import DATASET
from toto.shards.store import LocalStore, open_store
from toto.shards.stream import Stream
from toto.shards.writer import ShardWriter
from toto.tokenize.plan import read_plans

SMALL = 1_500  # bytes of a shard: about ten rows


@settings(max_examples=3)
@given(worlds(), st.integers(200, 3000), st.integers(0, 5))
def test_packed_rows_are_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any], shard_bytes: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    source, out = write_tokens(folder / "in", **made), folder / "out"
    done = pack(str(source), str(out), shard_bytes, seed, QUIET)
    assert rows(out) == rows(source) and results(out) == results(source)
    assert whole(out) and done.proof is not None and sum(done.proof.rows.values()) == len(Dataset(source))
    before, after = Dataset(source).info, Dataset(out).info
    assert after["annotations"] == before["annotations"] and after["tokenizer"] == before["tokenizer"]
    assert pack(str(source), str(folder / "again"), shard_bytes, seed, QUIET).snapshot.dataset_id == after["dataset_id"]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 40)), max_size=20), st.data())
def test_batches_are_written_as_their_rows_would_be(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    folder, made = tmp_path_factory.mktemp("write"), [record(i, *size) for i, size in enumerate(sizes)]
    with (
        patch("toto.shards.writer.BATCH_TOKEN_BYTES", data.draw(st.integers(1, 120))),
        patch("toto.shards.writer.BATCH_PIXEL_BYTES", data.draw(st.integers(1, 90))),
    ):
        summaries = []
        for name, most in (("rows", 1), ("batches", 7)):
            writer, left = ShardWriter(folder / name, np.dtype(np.uint16), {"format_version": 1}), made
            while left:
                count = data.draw(st.integers(1, most))
                part, left = left[:count], left[count:]
                if most == 1 or data.draw(st.booleans()):
                    for row in part:
                        writer.write(row)
                else:
                    around = rows_to_batch([made[0], *part, made[0]], row_schema(np.dtype(np.uint16), {}))
                    writer.write_batch(around.slice(1, len(part)))
            summaries.append(writer.close())
    assert summaries[0] == summaries[1]
    one, other = (pa.ipc.open_file(pa.memory_map(str(folder / name))) for name in ("rows", "batches"))
    assert one.num_record_batches == other.num_record_batches == len(summaries[0].batch_rows)
    assert all(one.get_batch(i).equals(other.get_batch(i)) for i in range(one.num_record_batches))


def record(i: int, frames: int, pixels: int) -> RowRecord:
    """A row of small numbers; every other column that may be null is so in some rows."""
    index = np.arange(frames, dtype=np.int32) if i % 2 else None
    return RowRecord(
        *(row_id(str(i), i, 0), str(i), i, 0, 1, frames, 2, 2, to_ids(np.full((frames, 2, 2), i), 1, np.dtype("u2"))),
        *(bytes(pixels) if pixels else None, i % 3 or None, 0, 1, index, None, None, None, (0, 0, 2, i), 0),
    )


def test_quarantined_sources_and_the_last_attempts_come_along(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 6), tmp_path / "out"
    facts = {**facts_of(source), "settings": Dataset(source).info["settings"]}
    again = Video("again.mp4", np.zeros((3, 4, 4), int))
    made = list(token_world._rows(again, np.dtype(np.uint16), 4))
    good, bad = token_world._result(again, made), {**token_world._result(again, []), "run_lengths": []}
    failed = {**bad, "status": "quarantined", "reason": "timeout"}
    token_world._write_unit(LocalStore(source), "a" * 16, "train", made[:0], [failed], facts)
    token_world._write_unit(LocalStore(source), "b" * 16, "train", made, [{**good, "attempt": 1}], facts)
    token_world._write_unit(LocalStore(source), "c" * 16, "train", made[:0], [{**failed, "key": "never.mp4"}], facts)
    world(tmp_path / "in", 6)
    pack(str(source), str(out), SMALL, 0, QUIET)
    assert rows(out) == rows(source) and len(Dataset(out)) == 7 and whole(out)
    told = {line["key"]: (line["attempt"], line["reason"]) for line in results(out)}
    assert told["again.mp4"] == (1, None) and told["never.mp4"] == (0, "timeout") and len(told) == 8


def facts_of(root: Path) -> dict[str, Any]:
    """What its shards say."""
    shard = next((root / "shards").iterdir())
    return ShardReader(shard, shard.name).metadata


def test_row_hashes_are_content_hashes_of_single_rows(tmp_path: Path) -> None:
    source = world(tmp_path / "in", batch_bytes=1 << 20)
    whole_sum = RowSum()
    for _, _, batch in Dataset(source).batches():
        arrow = batch.arrow
        assert row_hashes(arrow) == [int(content_hash(arrow.slice(i, 1)), 16) for i in range(arrow.num_rows)]
        whole_sum.add(arrow)
    parts = RowSum()
    for _, _, batch in Dataset(world(tmp_path / "cut", batch_bytes=1)).batches():
        part = RowSum()
        part.add(batch.arrow)
        parts = part + parts
    assert whole_sum == parts and whole_sum.rows == 24


def test_shards_are_even_and_shuffled_and_each_batch_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tokens(tmp_path / "in", images=still_images(400), unit_sources=50, batch_bytes=340)
    read: Counter[tuple[str, int]] = Counter()
    really = Input.batch

    def counted(taken: Input, unit: str, batch: int) -> Any:
        read[unit, batch] += 1
        return really(taken, unit, batch)

    monkeypatch.setattr(Input, "batch", counted)
    pack(str(source), str(tmp_path / "out"), 2_900, 0, Options(workers=1, proof=False, say=lambda text: None))
    assert set(read.values()) == {1}
    packed = Dataset(tmp_path / "out")
    shards = range(packed.info["totals"]["shards"])
    sizes = [sum(len(batch.tokens) for _, _, batch in packed.batches(shard)) for shard in shards]
    assert len(sizes) == 5 and max(sizes) - min(sizes) <= 2 * 170  # a piece is ten images of 18 ids
    places = [int(row.source[6:10]) for row in packed.rows()]
    assert np.mean(np.abs(np.diff(places)) == 1) < 0.95 and places != sorted(places)


def test_killed_at_every_step_and_run_again(tmp_path: Path) -> None:
    source = world(tmp_path / "in", 12)
    expected = pack(str(source), str(tmp_path / "alone"), SMALL, 0, QUIET).snapshot.dataset_id
    out, codes = str(tmp_path / "out"), list[int | None]()
    while 0 not in codes:
        options = killing_at(len(codes) + 1)
        child = in_child(partial(pack, str(source), out, SMALL, 0, options))
        child.join()
        codes.append(child.exitcode)
    assert set(codes) == {-signal.SIGKILL, 0} and len(codes) == 8
    assert Dataset(out).dataset_id == expected and whole(out)


def test_killed_at_random_moments_and_run_again(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 40), tmp_path / "out"
    expected = pack(str(source), str(tmp_path / "alone"), SMALL, 0, QUIET).snapshot.dataset_id
    draw = random.Random(1)
    for _ in range(3):
        killed_after(lambda: pack(str(source), str(out), SMALL, 0, QUIET), draw.uniform(0.02, 0.25))
    assert pack(str(source), str(out), SMALL, 0, QUIET).snapshot.dataset_id == expected
    assert whole(out) and rows(out) == rows(source)


def test_ctrl_c_ends_the_processes_and_leaves_no_unfinished_shard(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 30), tmp_path / "out"

    def wait(point: str) -> None:
        while point == "after_views":  # of its seal: it does not end before the signal comes
            time.sleep(0.01)

    options = Options(workers=2, say=QUIET.say, reached=wait)
    child = in_child(partial(pack, str(source), str(out), 600, 0, options))
    while not (out / "commits").is_dir() and child.is_alive():
        time.sleep(0.01)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGINT)
    child.join()
    assert child.exitcode == 1 and not (out / DATASET).exists()
    assert sum(path.stat().st_size for path in (out / "tmp").iterdir()) < 5_000  # at most a commit that was being made
    assert list((out / "tmp").glob("*-*-*")) == []
    pack(str(source), str(out), 600, 0, QUIET)
    assert rows(out) == rows(source)


def test_two_at_once_make_one_dataset(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 40), tmp_path / "out"
    children = [in_child(lambda: pack(str(source), str(out), SMALL, 0, QUIET)) for _ in range(2)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert whole(out) and rows(out) == rows(source)


def test_a_full_disk_is_told_and_the_pack_goes_on(disk: Disk, tmp_path: Path) -> None:
    images = still_images(1_500, grid=(16, 16), vocab_size=8_192)
    source, out = write_tokens(tmp_path / "in", images=images, vocab_size=8_192), disk.place / "out"
    disk.remount("size=500k")
    with pytest.raises(OSError, match="No space left"):
        pack(str(source), str(out), 200_000, 0, QUIET)
    assert not (out / DATASET).exists()
    assert [path.name for path in (out / "tmp").iterdir() if path.suffix != ".lock"] == []
    disk.remount("size=16m")
    pack(str(source), str(out), 200_000, 0, QUIET)
    assert whole(out) and rows(out) == rows(source)


def test_to_a_remote_store(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in"), f"memory://{tmp_path.name}/packed"
    here = pack(str(source), str(tmp_path / "here"), SMALL, 0, QUIET)
    assert pack(str(source), out, SMALL, 0, QUIET).snapshot.dataset_id == here.snapshot.dataset_id
    assert whole(out) and rows(out) == rows(source)
    back = pack(out, str(tmp_path / "back"), SMALL, 0, QUIET)
    assert back.proof == here.proof


def test_a_stream_reads_a_packed_dataset(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in"), tmp_path / "out"
    pack(str(source), str(out), SMALL, 0, QUIET)
    read = []
    for root in (source, out):
        recipe = make_recipe([("world", str(root), 1, "train")], frames=2, stride=4, seed=0, batch_sequences=4)
        stream = Stream(recipe)
        (count,) = stream.sequences_per_epoch().values()
        read.append(Counter(stream.sequence(g).clips[0].source for g in range(count)))
    assert read[0] == read[1]


def test_a_pack_goes_on_with_the_snapshot_that_it_began_with(tmp_path: Path) -> None:
    source, out, said = world(tmp_path / "in", 12), str(tmp_path / "out"), list[str]()
    expected = pack(str(source), str(tmp_path / "alone"), SMALL, 0, QUIET).snapshot.dataset_id
    in_child(lambda: pack(str(source), out, SMALL, 0, killing_at(6))).join()
    world(tmp_path / "in", 20)
    assert pack(str(source), out, SMALL, 0, Options(say=said.append)).snapshot.dataset_id == expected
    assert "has a newer snapshot" in said[0]


def test_what_would_make_something_else_is_refused(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 6), str(tmp_path / "out")
    pack(str(source), out, SMALL, 0, QUIET)
    with pytest.raises(UsageError, match="seed = 0, this command has 1"):
        pack(str(source), out, SMALL, 1, QUIET)
    with pytest.raises(UsageError, match="holds a dataset already"):
        pack(out, str(source), SMALL, 0, QUIET)
    with pytest.raises(UsageError, match="made by `toto-shards pack`.*another --out"):
        read_plans(Dataset(out).store)
    other = world(tmp_path / "other", 5)
    with pytest.raises(UsageError, match="from = "):
        pack(str(other), out, SMALL, 0, QUIET)


def test_results_that_tell_of_other_rows_are_refused(tmp_path: Path) -> None:
    source, video = world(tmp_path / "in", 6), Video("more.mp4", np.zeros((3, 4, 4), int))
    made = list(token_world._rows(video, np.dtype(np.uint16), 4))
    result = {**token_world._result(video, made), "rows": 9}
    token_world._write_unit(LocalStore(source), "a" * 16, "train", made, [result], facts_of(source))
    world(tmp_path / "in", 6)
    with pytest.raises(UserError, match="of other rows|tell of 9 rows, its shard has 1"):
        pack(str(source), str(tmp_path / "out"), SMALL, 0, QUIET)
    assert not (tmp_path / "out").exists()


def test_a_lost_row_is_noticed_before_anything_is_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = world(tmp_path / "in", 6), tmp_path / "out"
    make = RowCopier.make

    def losing(copier: RowCopier, unit: Any, writer: Any, told: Any) -> Any:
        really = writer.write_batch
        writer.write_batch = lambda batch: really(batch.slice(0, batch.num_rows - 1))
        return make(copier, unit, writer, told)

    monkeypatch.setattr(RowCopier, "make", losing)
    with pytest.raises(UserError, match="its sources have.*nothing was sealed"):
        pack(str(source), str(out), 1 << 20, 0, QUIET)
    assert not (out / DATASET).exists()


def test_the_command_tells_its_proof_and_a_pack_of_a_pack_its_past(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 6), tmp_path / "out"
    done = CliRunner().invoke(cli, ["pack", str(source), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["proof"]["rows"] == {"train": 5, "val": 1} and told["rows"] == 6
    assert f"the same 5 rows as before (row hashes add up to {told['proof']['row_hash']['train']}" in done.stdout
    pack(str(out), str(tmp_path / "twice"), SMALL, 0, QUIET)
    (origin,) = Dataset(tmp_path / "twice").info["settings"]["derived"]["from"]
    assert origin["dataset_id"] == told["dataset_id"]
    assert origin["derived"]["from"] == [{"dataset_id": Dataset(source).dataset_id}]


def test_files_of_others_at_the_target_are_neither_removed_nor_written_over(tmp_path: Path) -> None:
    source, out = world(tmp_path / "in", 6), tmp_path / "proj"
    for name in ("shards/main.c", "sources/z.txt", "tmp/notes.txt", "README.md", "main.py"):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        os.utime(path, (0, 0))
        with pytest.raises(UsageError, match="no part of a dataset .*a folder of its own"):
            pack(str(source), str(out), SMALL, 0, QUIET)
        assert path.read_text() == name
        path.rename(tmp_path / "aside")
    pack(str(source), str(out), SMALL, 0, QUIET)
    theirs = [out / name for name in ("shards/main.c", "sources/z.txt", "tmp/notes.txt")]
    ours = [out / "shards" / f"{16 * '0'}-{8 * '0'}.arrow", out / "tmp" / f"7-{12 * '0'}"]
    for path in (*theirs, *ours):
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
        os.utime(path, (0, 0))
    removed = clean(open_store(out))
    assert sorted(removed) == sorted(str(path.relative_to(out)) for path in ours)
    assert all(path.exists() for path in theirs)


def test_a_target_inside_a_dataset_or_around_one_is_refused(tmp_path: Path) -> None:
    source, other = world(tmp_path / "sets" / "in", 6), world(tmp_path / "other", 6)
    for out in (source / "shards", source / "packed", other / "packed", tmp_path / "sets"):
        with pytest.raises(UsageError, match="lies inside"):
            pack(str(source), str(out), SMALL, 0, QUIET)
    with pytest.raises(UsageError, match="--out is empty"):
        pack(str(source), "", SMALL, 0, QUIET)
    assert whole(source) and whole(other)
