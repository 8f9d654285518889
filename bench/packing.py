"""How fast `toto-shards pack` rewrites a dataset, beside pyarrow alone reading and writing the same shards.

    python bench/packing.py [DATASET] [--workers 1] [--repeats 3] [--json]

Without a dataset, 40 M made-up ids of videos are written first. pyarrow's side neither shuffles, nor checks a hash, nor
syncs, nor reads back what it wrote; ours does all of that, and with --proof reads the input once more.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from toto import Dataset  # noqa: E402
from toto.shards.rewrite.derive import Options  # noqa: E402
from toto.shards.rewrite.importing import import_tokens  # noqa: E402
from toto.shards.rewrite.pack import pack  # noqa: E402

SHARD_BYTES = 32 << 20
QUIET = Options(say=lambda text: None)


@click.command()
@click.argument("dataset", required=False)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(dataset: str | None, workers: int, repeats: int, as_json: bool) -> None:
    """Prints every repetition, then medians."""
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder), dataset or made_up(Path(folder)), workers, repeats)
    if as_json:
        click.echo(json.dumps(lines))


def measure(folder: Path, dataset: str, workers: int, repeats: int) -> list[dict[str, object]]:
    """MB of ids a second, both sides in turn."""
    opened = Dataset(dataset)
    megabytes = opened.info["totals"]["tokens"] * next(opened.batches())[2].tokens.itemsize / 1e6
    sides: dict[str, Callable[[Path], object]] = {
        "pack": lambda out: pack(dataset, str(out), SHARD_BYTES, 0, Options(workers, False, QUIET.say)),
        "pack with proof": lambda out: pack(dataset, str(out), SHARD_BYTES, 0, Options(workers, True, QUIET.say)),
        "pyarrow": lambda out: by_pyarrow(opened, out),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, act in sides.items():
            began = time.perf_counter()
            act(folder / "out")
            rates[name].append(megabytes / (time.perf_counter() - began))
            shutil.rmtree(folder / "out")
    for name, found in rates.items():
        click.echo(f"{name}: {', '.join(f'{rate:.0f}' for rate in found)} MB/s of {megabytes:.0f} MB")
    median = {name: statistics.median(found) for name, found in rates.items()}
    return [
        {
            **{"what": name, "ours": median[name], "peer": median["pyarrow"], "unit": "MB/s"},
            **{"ratio": median[name] / median["pyarrow"], "bar": None},
        }
        for name in ("pack", "pack with proof")
    ]


def by_pyarrow(dataset: Dataset, out: Path) -> None:
    """Every shard read and written again, as they are."""
    out.mkdir()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1), use_threads=False)
    for path in sorted((Path(dataset.store.uri) / "shards").glob("*.arrow")):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        with pa.ipc.new_file(str(out / path.name), reader.schema, options=options) as writer:
            for i in range(reader.num_record_batches):
                writer.write_batch(reader.get_batch(i))


def made_up(folder: Path) -> str:
    """A dataset of even random codes of videos in units of 8 MB."""
    rng = np.random.default_rng(0)
    (folder / "codes").mkdir()
    for i in range(160):
        np.save(folder / "codes" / f"{i:04d}.npy", rng.integers(0, 8192, (1024, 16, 16), np.uint16))
    facts = {"vocab_size": 8192, "patch": 8}
    import_tokens(folder / "codes", str(folder / "made-up"), "made-up", "train", facts, 8 << 20, QUIET)
    return str(folder / "made-up")


if __name__ == "__main__":
    main()
