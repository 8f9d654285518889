"""A dataset made in this process by the functions behind `toto-tokenize run`; rows keep pixels, so that a frame of
`footage.numbered` still tells its number after the whole way."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from footage import number_of

from toto import Dataset
from toto.config import DatasetConfig, TokenizerConfig
from toto.shards.row import Row
from toto.shards.store import open_store
from toto.shards.verify import verify
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import make_job
from toto.tokenize.run import Options, tokenize

NO_CODES = TokenizerConfig(name="none", backend="none")
DCT = TokenizerConfig(name="dct", backend="dct", vocab_size=64)


def config(root: Path | str, **changes: Any) -> DatasetConfig:
    """A folder's videos whole, 16 px, every frame unless `changes` say more."""
    asked: dict[str, Any] = {
        "name": "mine",
        "layout": "folder",
        "root": str(root),
        "stride": 1,
        "crop": "center",
        "resolution": 16,
        "run_frames": "all",
        "min_frames": 1,
        "keep_pixels": 16,
    }
    return DatasetConfig(**(asked | changes))


def make(root: Path | str, out: Path, tokenizer: TokenizerConfig = NO_CODES, **changes: Any) -> Dataset:
    """Tokenizes and verifies, byte by byte. Every source is planned as one frame: no process reads headers."""
    asked = config(root, **changes)
    with patch.object(Estimator, "kept_frames", lambda self, sources: [1] * len(sources)):
        tokenize(asked, make_job(asked, tokenizer, str(out)), Options(engine="local", quiet=True))
    report = verify(open_store(out), deep=True)
    assert report.ok and not report.leftovers, report
    return Dataset(out)


def numbers(row: Row) -> list[int]:
    """Which frames of `numbered` a row shows."""
    assert row.pixels is not None
    return [number_of(frame) for frame in row.pixels]


def pixels(row: Row) -> np.ndarray:
    """uint8 [n, H, W, 3]: what the row keeps."""
    assert row.pixels is not None
    return row.pixels
