"""A manifest of a million shards: opened in bounded memory, counted exactly, read at both ends and streamed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from token_world import moving_videos, write_tokens

from toto import Dataset
from toto.shards.parquet import parquet_bytes
from toto.shards.recipe import make_recipe
from toto.shards.snapshot import snapshot_bytes
from toto.shards.stream import Stream

SHARDS, VIDEOS, FRAMES = 10**6, 3, 9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one shard, whose manifest then names that shard a million times, each time as another unit's."""
    root = write_tokens(tmp_path_factory.mktemp("million") / "set", moving_videos(VIDEOS, frames=FRAMES))
    value = json.loads((root / "dataset.json").read_text())
    ref = value["files"]["manifest"]
    table = pq.read_table(root / ref["path"], use_threads=False).take(pa.array(np.zeros(SHARDS, np.int64)))
    units = pc.utf8_lpad(pc.cast(pa.array(np.arange(SHARDS)), pa.string()), 16, "0")
    data = parquet_bytes(table.set_column(0, table.schema.field(0), units))
    (root / ref["path"]).write_bytes(data)
    ref |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    del value["sha256"]
    for name in ("dataset.json", f"manifest/{value['dataset_id']}.json"):
        (root / name).write_bytes(snapshot_bytes(value))
    return root


def test_a_million_shards_are_opened_in_bounded_memory_and_read_at_both_ends(root: Path) -> None:
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    dataset = Dataset(root, split="train")
    assert len(dataset) == SHARDS * VIDEOS
    assert dataset.windows(4) == SHARDS * VIDEOS * 2
    assert pool.bytes_allocated() - before < 330 * SHARDS  # what Arrow keeps of a unit
    for i in (0, 1, len(dataset) - 1):
        assert dataset.row(i).source == f"train/{i % VIDEOS:04d}.mp4"
    window = dataset.window(dataset.windows(4) - 1, 4)
    assert (window.source, window.start) == ("train/0002.mp4", 4)


def test_sequences_of_a_million_shards_are_found_without_looking_at_the_others(root: Path) -> None:
    stream = Stream(make_recipe([("many", str(root), 1, "train")], frames=4, stride=4, seed=0, batch_sequences=8))
    assert stream.sequences_per_epoch() == {"many": SHARDS * VIDEOS * 2}
    batch = stream.sequences(range(10**9, 10**9 + 8))
    assert batch.tokens.shape == (8, 4 * 16 + 2)
    assert {clip.source for sequence in batch for clip in sequence.clips} <= {f"train/000{i}.mp4" for i in range(3)}
