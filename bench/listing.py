"""What it takes to list a dataset: seconds of CPU, and memory for each source at the most and afterwards.

    python bench/listing.py [--sources 200000] [--only howto100m] [--json]

Each layout is written as tiny files in the shape that it has on disk, then listed by a process of its own, tars for the
first time. Memory is what the process takes beyond what it took before it listed. There is nobody to compare with.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import gc  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import tarfile  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from dataclasses import replace  # noqa: E402

import click  # noqa: E402

from toto.config import DatasetConfig  # noqa: E402
from toto.tokenize.sources import list_sources  # noqa: E402

IN_A_TAR = 1_000
IN_A_FOLDER = 1_000
CLASSES = 400


def folder(root: Path, sources: int) -> None:
    """IMG_00000012.jpg in folders of a thousand."""
    _touch(root, (f"{i // IN_A_FOLDER:05d}/IMG_{i:08d}.jpg" for i in range(sources)))


def imagenet21k(root: Path, sources: int) -> None:
    """<wnid>.tar with a thousand pictures each."""
    for at in range(0, sources, IN_A_TAR):
        wnid = f"n{at // IN_A_TAR:08d}"
        _tar(root / f"{wnid}.tar", ((f"{wnid}_{i}.JPEG", b"1") for i in range(min(IN_A_TAR, sources - at))))


def howto100m(root: Path, sources: int) -> None:
    """<id>.mp4 in folders of a thousand, and the list of all."""
    _touch(root, (f"{i // IN_A_FOLDER:05d}/{_id(i)}.mp4" for i in range(sources)))
    rows = (f"{_id(i)},Cars & Other Vehicles,Motorcycles,{i % 200},{i % 20_000}\n" for i in range(sources))
    _list(root / "HowTo100M_v1.csv", "video_id,category_1,category_2,rank,task_id\n", rows)


def howto100m_shards(root: Path, sources: int) -> None:
    """video2dataset's tars of .mp4 and .json, and the list of all."""
    _shards(root, sources)
    rows = (f"{_id(i)},Cars & Other Vehicles,Motorcycles,{i % 200},{i % 20_000}\n" for i in range(sources))
    _list(root / "HowTo100M_v1.csv", "video_id,category_1,category_2,rank,task_id\n", rows)


def kinetics(root: Path, sources: int) -> None:
    """train/<id>_<start>_<end>.mp4 as cvdf has them, and annotations/train.csv."""
    _touch(root, (f"train/{_id(i)}_{i % 300:06d}_{i % 300 + 10:06d}.mp4" for i in range(sources)))
    rows = (f'"class number {i % CLASSES}",{_id(i)},{i % 300},{i % 300 + 10},train,0\n' for i in range(sources))
    _list(root / "annotations" / "train.csv", "label,youtube_id,time_start,time_end,split,is_cc\n", rows)


def webdataset(root: Path, sources: int) -> None:
    """video2dataset's tars of .mp4, .txt and .json."""
    _shards(root, sources, "a sentence about what can be seen in this video")


WORLDS: dict[str, Callable[[Path, int], None]] = {
    "folder": folder,
    "imagenet21k": imagenet21k,
    "howto100m": howto100m,
    "howto100m-shards": howto100m_shards,
    "kinetics": kinetics,
    "webdataset": webdataset,
}


@click.command()
@click.option("--sources", type=click.IntRange(1), default=200_000, show_default=True)
@click.option("--only", type=click.Choice(list(WORLDS)), multiple=True)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(sources: int, only: tuple[str, ...], as_json: bool) -> None:
    """Prints a line for each layout."""
    lines = [line for name in only or WORLDS for line in measure(name, sources)]
    if as_json:
        click.echo(json.dumps(lines))


def measure(name: str, sources: int) -> list[dict[str, object]]:
    """Writes a world and has it listed."""
    with tempfile.TemporaryDirectory() as temporary:
        small, root = Path(temporary, "small"), Path(temporary, "world")
        for place, count in ((small, 2), (root, sources)):
            place.mkdir()
            WORLDS[name](place, count)
        os.environ["XDG_CACHE_HOME"] = f"{temporary}/cache"
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found, peak, kept, cpu_s = pool.apply(listed, (name.partition("-")[0], str(small), str(root)))
    if found != sources:
        raise RuntimeError(f"{name}: {found} of {sources} sources were listed")
    click.echo(f"{name}: {peak / found:,.0f} bytes a source at most, {kept / found:,.0f} afterwards, {cpu_s:.1f} CPU-s")
    shared = {"peer": None, "ratio": None, "bar": None}
    return [
        {"what": f"{name}, most memory while listing", "ours": peak / found, "unit": "bytes a source", **shared},
        {"what": f"{name}, memory afterwards", "ours": kept / found, "unit": "bytes a source", **shared},
        {"what": f"{name}, listing", "ours": cpu_s / found * 1e6, "unit": "CPU-s a million", **shared},
    ]


def listed(layout: str, small: str, root: str) -> tuple[int, int, int, float]:
    """(sources, bytes at the most, bytes afterwards, seconds of CPU), in a process that listed a small one before."""
    config = DatasetConfig(name="mine", layout=layout, root=root)
    list_sources(replace(config, root=small))  # whatever is imported and begun once
    before, began = _resident(), time.process_time()
    listing = list_sources(config)
    cpu_s, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    gc.collect()
    return len(listing.sources), peak - before, _resident() - before, cpu_s


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _id(i: int) -> str:
    return f"v{i:08d}-_"


def _touch(root: Path, names: Iterator[str]) -> None:
    made = set()
    for name in names:
        folder = os.path.dirname(name)
        if folder not in made:
            (root / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
        os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY))


def _list(path: Path, header: str, rows: Iterator[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        file.write(header)
        file.writelines(rows)


def _shards(root: Path, sources: int, text: str = "") -> None:
    for at in range(0, sources, IN_A_TAR):
        _tar(root / f"{at // IN_A_TAR:05d}.tar", _members(range(at, min(at + IN_A_TAR, sources)), text))


def _members(numbers: range, text: str) -> Iterator[tuple[str, bytes]]:
    for i in numbers:
        facts = {"url": f"https://www.youtube.com/watch?v={_id(i)}", "key": f"{i:09d}", "status": "success"}
        yield f"{i:09d}.mp4", b"1"
        yield f"{i:09d}.json", json.dumps(facts).encode()
        if text:
            yield f"{i:09d}.txt", text.encode()


def _tar(path: Path, members: Iterator[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
    main()
