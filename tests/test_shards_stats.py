"""`stats`, `info` and `card`: figures against counting one by one in plain Python, however the data is cut and read."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from math import log2
from pathlib import Path
from time import sleep
from typing import Any
from unittest.mock import patch

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from clips import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from launches import is_gone
from token_world import MOVE_NAMES, Image, Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards.card import card_text
from toto.shards.cli import cli
from toto.shards.manifest import final_results
from toto.shards.statistics.contexts import ContextCounts, Contexts
from toto.shards.statistics.per_source import SCHEMA
from toto.shards.statistics.stats import Asked, stats
from toto.shards.statistics.stats_picture import stats_picture

VOCAB = 32
SLEEPERS = """
import os, sys, time
from pathlib import Path
import click
from toto import command
from toto.shards.workers import each

def make():
    return sleep

def sleep(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(120)

@click.command()
@click.argument("folder")
def main(folder):
    for _ in each(make, [folder] * 2, 2):
        pass

if __name__ == "__main__":
    command.run(main)
"""


def drifting(rng: np.random.Generator, frames: int, grid: tuple[int, int], move: float) -> np.ndarray:
    """Codes of which each changes from frame to frame with the chance `move`."""
    codes = rng.integers(0, VOCAB - 4, (frames, *grid))
    for t in range(1, frames):
        codes[t] = np.where(rng.random(grid) < move, codes[t], codes[t - 1])
    return codes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    videos = [
        Video(f"v{i}.mp4", drifting(rng, 13, (4, 6), 0.1 * i), "val" if i == 3 else "train", i % 3 or None, 2, (6, 7))
        for i in range(9)
    ]
    videos.append(Video("short.mp4", drifting(rng, 1, (2, 2), 1), label=1, views=2))
    images = [Image(f"i{i}.png", rng.integers(0, VOCAB - 4, (4, 6)), "val", i, views=2) for i in range(4)]
    root = tmp_path_factory.mktemp("stats") / "set"
    return write_tokens(root, videos, images, vocab_size=VOCAB, unit_sources=4, batch_bytes=700)


def bits(counted: Iterable[int]) -> float:
    counted = list(counted)
    return -sum(c / sum(counted) * log2(c / sum(counted)) for c in counted) if counted else 0.0


def given_bits(pairs: list[tuple[int, int]]) -> float:
    """Entropy of the second of each pair given the first, group by group."""
    groups = defaultdict(list)
    for context, code in pairs:
        groups[context].append(code)
    return sum(len(codes) * bits(Counter(codes).values()) for codes in groups.values()) / len(pairs)


def cells(root: Path, split: str | None) -> Iterator[tuple[Any, int, int, int, int, np.ndarray]]:
    """(row, t, y, x, code, codes of the row) of every code."""
    for row in Dataset(root, split=split).rows():
        codes = row.codes
        for (t, y, x), code in np.ndenumerate(codes):
            yield row, t, y, x, int(code), codes


@pytest.mark.parametrize("split", [None, "val"])
def test_figures_are_those_of_counting_one_by_one(world: Path, split: str | None) -> None:
    value = stats(Asked(world, split))
    seen: Counter[int] = Counter()
    places, pairs = defaultdict(Counter), defaultdict(list)
    compared = static = 0
    for _, t, y, x, code, codes in cells(world, split):
        seen[code] += 1
        places[y * 4 // codes.shape[1], x * 6 // codes.shape[2]][code] += 1
        for name, there, (a, b, c) in (
            ("left", x, (t, y, x - 1)),
            ("above", y, (t, y - 1, x)),
            ("previous_frame", t, (t - 1, y, x)),
        ):
            if there:
                pairs[name].append((int(codes[a, b, c]), code))
        if t:
            compared, static = compared + 1, static + int(codes[t - 1, y, x] == code)
    book = value["codebook"]
    assert value["codes"] == seen.total() and book["used"] == len(seen) and book["dead"] == VOCAB - len(seen)
    assert book["first_dead"] == [code for code in range(VOCAB) if not seen[code]][:20]
    best = sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:10]
    assert [(line["code"], line["count"]) for line in book["top"]] == best
    assert value["entropy_bits"] == pytest.approx(bits(seen.values()))
    assert value["perplexity"] == pytest.approx(2 ** bits(seen.values()))
    for name, found in value["given"].items():
        assert found["bits"] == pytest.approx(given_bits(pairs[name])) and not found["standard_error"]
        assert found["pairs"] == found["pairs_counted"] == len(pairs[name])
    expected = [[round(bits(places[y, x].values()), 6) for x in range(6)] for y in range(4)]
    assert np.allclose(value["positions"]["bits"], expected)
    assert value["static"]["compared"] == compared and value["static"]["share"] == pytest.approx(static / compared)


def test_stretches_are_those_of_walking_through_each_cell(world: Path) -> None:
    lengths: Counter[int] = Counter()
    for row in Dataset(world).rows():
        if row.kind != 1:
            continue
        for cell in row.codes.reshape(row.n_frames, -1).T.tolist():
            length = 1
            for before, code in zip(cell, [*cell[1:], None], strict=True):
                lengths, length = (lengths, length + 1) if code == before else (lengths + Counter([length]), 1)
    found = stats(Asked(world))["static"]["stretches"]
    assert {int(n): count for n, count in found["histogram"].items()} == lengths
    codes = sum(n * count for n, count in lengths.items())
    assert found["mean_frames"] == pytest.approx(codes / lengths.total()) and found["longest_frames"] == max(lengths)
    assert found["share_of_codes"]["4"] == pytest.approx(sum(n * c for n, c in lengths.items() if n >= 4) / codes)


def by_source(root: Path) -> dict[str, dict[str, Any]]:
    """The per-source figures, row by row."""
    found: dict[str, dict[str, Any]] = {}
    for row in Dataset(root).rows():
        line = found.setdefault(row.source, {"seen": Counter(), "rows": 0, "frames": 0, "compared": 0, "static": 0})
        codes = row.codes
        line["seen"].update(codes.reshape(-1).tolist())
        line["rows"], line["frames"] = line["rows"] + 1, line["frames"] + len(codes)
        line["compared"] += codes[1:].size
        line["static"] += int((codes[1:] == codes[:-1]).sum())
        line |= {"split": row.split, "label": row.label, "kind": "image" if row.kind == 3 else "video"}
    return found


def test_the_per_source_file_and_the_groups_are_those_of_every_row(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sources.parquet"
    value = stats(Asked(world, by="label", per_source=out))
    expected = by_source(world)
    table = pq.read_table(out)
    assert table.schema.equals(SCHEMA) and sorted(table["source"].to_pylist()) == sorted(expected)
    for line in table.to_pylist():
        source = expected[line["source"]]
        assert {name: line[name] for name in ("rows", "frames", "compared", "static", "split", "label", "kind")} == {
            name: source[name] for name in ("rows", "frames", "compared", "static", "split", "label", "kind")
        }
        assert line["codes"] == source["seen"].total() and line["codes_used"] == len(source["seen"])
        assert line["entropy_bits"] == pytest.approx(bits(source["seen"].values()))
        share = source["static"] / source["compared"] if source["compared"] else None
        assert line["static_share"] == (None if share is None else pytest.approx(share))
    shares = [line["static_share"] for line in table.to_pylist() if line["static_share"] is not None]
    assert value["sources"]["static_share"]["0.5"] == pytest.approx(np.median(shares))
    assert value["sources"]["most_static"][0]["source"] == "v0.mp4"
    for group in value["by"]["label"]:
        members = [source for source in expected.values() if source["label"] == group["label"]]
        together = sum((source["seen"] for source in members), Counter())
        assert (group["sources"], group["codes"]) == (len(members), together.total())
        assert group["codes_used"] == len(together)
        assert group.get("name") == (None if group["label"] is None else MOVE_NAMES[group["label"]])
        assert group["entropy_bits"] == pytest.approx(bits(together.values()))
    splits = {line["split"]: line["codes"] for line in stats(Asked(world, by="split"))["by"]["split"]}
    assert splits == {name: stats(Asked(world, name))["codes"] for name in ("train", "val")}


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.booleans()), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([40, 200, 1 << 19]),
)
@settings(max_examples=3)
def test_how_the_rows_are_cut_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, sources: list[tuple[int, int, bool]], unit: int, batch: int
) -> None:
    rng = np.random.default_rng(len(sources))
    videos = [
        Video(f"{i}.mp4", rng.integers(0, 5, (n, k, 2)), runs=tuple([1] * (n - 1) + [1]) if cut else ())
        for i, (n, k, cut) in enumerate(sources)
    ]
    folder = tmp_path_factory.mktemp("cut")
    values = []
    for name, sizes in (("one", {}), ("many", {"unit_sources": unit, "batch_bytes": batch})):
        value = stats(Asked(write_tokens(folder / name, videos, vocab_size=5, **sizes)))
        for changed in ("uri", "dataset_id", "read", "bytes"):
            del value[changed]
        values.append(value)
    assert values[0].pop("positions").keys() == values[1].pop("positions").keys()  # of the first grid in the file
    assert values[0] == values[1]


def test_processes_gathering_and_samples_change_nothing_but_the_share(world: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    whole = stats(Asked(world, by="label", per_source=outs[0]))
    with patch("toto.shards.statistics.reading.FEW_TOKENS", 100):
        assert stats(Asked(world, by="label", workers=2, per_source=outs[1])) == whole
    assert pq.read_table(outs[0]).equals(pq.read_table(outs[1]))
    with patch("toto.shards.statistics.tally.GATHERED_CODES", 50):
        assert stats(Asked(world, by="label")) == whole
    part = stats(Asked(world, sample=2))
    assert part["read"]["batches"] == 2 and not part["read"]["exact"] and part["rows"] == part["read"]["rows"]
    assert part["frames_per_run"] == whole["frames_per_run"] and part["windows"] == whole["windows"]


def test_with_chosen_contexts_the_entropy_is_close_and_its_error_is_stated() -> None:
    rng = np.random.default_rng(3)
    vocab = 512
    shares = (np.arange(vocab) + 3.0) ** -1
    context = rng.choice(vocab, 200_000, p=shares / shares.sum())
    code = (context + rng.integers(0, 1 + context % 37, len(context))) % vocab
    first = np.bincount(context[:4_000], minlength=vocab)
    exact = given_bits(list(zip(context.tolist(), code.tolist(), strict=True)))
    few = patch.multiple("toto.shards.statistics.contexts", TABLE_CELLS=128 * vocab, CONTEXTS=128)
    with few:
        found = [counted(Contexts.choose(first, seed), context, code) for seed in range(8)]
    for one in found:
        assert one["pairs"] == len(context) > one["pairs_counted"] and one["contexts"] <= 128
        assert 0 < one["standard_error"] < 0.2 and abs(one["bits"] - exact) < 4 * one["standard_error"]
    assert counted(Contexts.choose(first), context, code)["bits"] == pytest.approx(exact)


def counted(contexts: Contexts, context: np.ndarray, code: np.ndarray) -> dict[str, Any]:
    counts = ContextCounts(contexts)
    for part in np.array_split(np.arange(len(context)), 3):
        counts.add(context[part].astype(np.uint16), code[part].astype(np.uint16))
    counts.finish()
    return counts.facts()


@pytest.mark.parametrize("shape", [(5, 2, 1), (3, 4, 4), (6, 3, 5)])  # counts n of which n · log2(n) / n > log2(n)
def test_no_entropy_of_constant_codes_is_below_zero(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    root = write_tokens(tmp_path / "set", [Video("still.mp4", np.full(shape, 7), label=1)])
    for words in (["stats", str(root), "--by", "label", "--json"], ["ngrams", str(root), "--json"]):
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0 and "0.000 bits" in done.stdout and "-0.0" not in done.stdout


def test_a_remote_dataset_has_the_same_figures(world: Path, request: pytest.FixtureRequest) -> None:
    fsspec.filesystem("memory").put(str(world), f"/{request.node.name}", recursive=True)
    here, there = stats(Asked(world)), stats(Asked(f"memory://{request.node.name}"))
    assert there.pop("uri") != here.pop("uri") and there == here


def test_a_dataset_without_codes_or_rows_is_refused_in_one_line(tmp_path: Path) -> None:
    empty = write_tokens(tmp_path / "set")
    with pytest.raises(UserError, match="has no rows"):
        stats(Asked(empty))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_worker_processes_end_with_the_command(tmp_path: Path, number: int) -> None:
    script, folder = tmp_path / "sleepers.py", tmp_path / "started"
    script.write_text(SLEEPERS)
    folder.mkdir()
    running = subprocess.Popen(
        [sys.executable, script, folder], env=environment(), stderr=subprocess.PIPE, start_new_session=True
    )
    while len(list(folder.iterdir())) < 2 and running.poll() is None:
        sleep(0.02)
    workers = [int(path.name) for path in folder.iterdir()]
    os.kill(running.pid, number) if number == signal.SIGKILL else os.killpg(running.pid, number)
    _, stderr = running.communicate(timeout=200)
    assert running.returncode == (-9 if number == signal.SIGKILL else 130), stderr
    assert b"Traceback" not in stderr
    for worker in workers:
        while not is_gone(worker):
            sleep(0.02)


def test_the_command_writes_a_picture_and_figures_and_lists_what_was_asked(world: Path, tmp_path: Path) -> None:
    picture, table = tmp_path / "stats.png", tmp_path / "sources.parquet"
    words = ["stats", str(world), "--by", "split", "--out", str(picture), "--out", str(table), "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG") and table.is_file()
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(json.dumps(stats(Asked(world, by="split"))))
    still = write_tokens(tmp_path / "images", images=[Image("a.png", np.ones((2, 2), int))], vocab_size=4)
    assert stats_picture(stats(Asked(still))).startswith(b"\x89PNG")  # parts without data
    refused = CliRunner().invoke(cli, ["stats", str(world), "--out", "stats.svg"])
    assert refused.exit_code and "known formats" in str(refused.exception)


def test_without_matplotlib_one_line_says_what_to_install(world: Path, tmp_path: Path) -> None:
    with patch.dict(sys.modules, {"matplotlib.figure": None}):
        done = CliRunner().invoke(cli, ["stats", str(world), "--out", str(tmp_path / "stats.png")])
    assert done.exit_code == 0 and done.stdout.count("matplotlib") == 1 and not list(tmp_path.iterdir())


def test_info_of_several_datasets_is_the_papers_table_with_a_total(world: Path, tmp_path: Path) -> None:
    other = write_tokens(tmp_path / "other", [Video("a.mp4", np.zeros((20, 2, 2), int))], vocab_size=VOCAB)
    one = CliRunner().invoke(cli, ["info", str(world), "--json"])
    done = CliRunner().invoke(cli, ["info", str(world), str(other), "--json"])
    assert one.exit_code == done.exit_code == 0
    value = json.loads(done.stdout.splitlines()[-1])
    first, second = value["datasets"]
    assert first.items() >= json.loads(one.stdout.splitlines()[-1]).items()
    assert (second["instances"], second["tokens"], second["codes"], second["every_frame_codes"]) == (1, 82, 80, 80)
    for name in ("instances", "tokens", "frames", "codes", "hours", "bytes", "every_frame_codes"):
        assert value["total"][name] == pytest.approx(first[name] + second[name])
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["dataset", "instances", "tokens", "hours"] and lines[3].startswith("total")
    assert first["every_frame_codes"] == round(first["decoded_frames"] * first["codes"] / first["frames"])


def test_the_card_rendered_again_is_the_sealed_one_and_takes_figures_in(world: Path, tmp_path: Path) -> None:
    sealed = (world / "README.md").read_text()
    dataset = Dataset(world)
    assert card_text(dataset.info, final_results([dataset.sources()])) == sealed
    figures = tmp_path / "stats.json"
    figures.write_text("lines before\n" + json.dumps(stats(Asked(world))) + "\n")
    out = tmp_path / "README.md"
    assert CliRunner().invoke(cli, ["card", str(world), "--out", str(out)]).exit_code == 0
    assert out.read_text() == sealed
    words = ["card", str(world), "--stats", str(figures), "--hub", "--out", str(out)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    richer = out.read_text()
    kept = [line for line in richer.splitlines() if line in set(sealed.splitlines())]
    assert kept[: len(sealed.splitlines())] == sealed.splitlines() or set(sealed.splitlines()) <= set(kept)
    assert "## Codes" in richer and all(path in richer for path in dataset.store.list("shards"))
    other = write_tokens(tmp_path / "other", [Video("a.mp4", np.zeros((3, 2, 2), int))])
    refused = CliRunner().invoke(cli, ["card", str(other), "--stats", str(figures)])
    assert isinstance(refused.exception, UserError) and "of dataset" in str(refused.exception)
    for own in ("README.md", "quarantine.parquet", "shards/new.arrow"):
        refused = CliRunner().invoke(cli, ["card", str(world), "--hub", "--out", str(world / own)])
        assert isinstance(refused.exception, UsageError) and "is a file of the dataset" in str(refused.exception)
    assert (world / "README.md").read_text() == sealed
    for text in ("", "[1]", '{"dataset_id": 1}', '{"dataset_id": "x", "codebook": 1, "read": {}}', "\xff"):
        figures.write_text(text, encoding="latin-1")
        refused = CliRunner().invoke(cli, words)
        assert "not what `toto-shards stats URI --json` prints" in str(refused.exception)
