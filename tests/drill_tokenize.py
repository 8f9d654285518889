"""kill -9 of Ray runs at random moments, then a run to the end, on Ray or not: the same dataset as without any kill.
Then a run over 10,000 tiny pictures on Ray. drill.py runs both.

A kill takes one worker, the driver, or the driver with all of its Ray, and counts only if it struck when some units
were committed and some were not.
"""

import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clips import PIXELS, rows_of, tokenize, write_clips, write_pictures
from ray_run import VICTIMS, Run

from toto import Dataset
from toto.shards.store import open_store
from toto.shards.verify import verify

UNITS = 20
LATE_S = 0.2  # a kill comes up to so long after the commit that it waited for; a unit takes about as long
TRIES = 5  # strikes for one that counts
ON_RAY = ("--workers", "2")
WITHOUT_RAY = ("--ray-address", "local")


@dataclass(frozen=True)
class Content:
    """What two runs must agree on."""

    dataset_id: str
    rows: Counter[str]


@dataclass(frozen=True)
class Strike:
    """A kill that was survived: whether it struck, how many units were committed then, and what came out."""

    struck: bool
    committed: int
    planned: int
    content: Content
    runs: tuple[Run, Run]  # the killed one and the one after it; no process of either may stay

    @property
    def counts(self) -> bool:
        """Whether it struck in the middle."""
        return self.struck and 0 < self.committed < self.planned


def make_world(folder: Path, units: int) -> Path:
    """Clips of 520 frames, each a unit of its own: 512 frames of pixels close a unit."""
    write_clips(folder, 3, 520)
    for i in range(3, units):
        shutil.copy(folder / f"clip-{i % 3:03d}.mp4", folder / f"clip-{i:03d}.mp4")
    return folder


def content(out: Path) -> Content:
    """The content of a dataset; RuntimeError when `verify --deep` does not find it whole."""
    report = verify(open_store(out), deep=True)
    if not report.ok:
        raise RuntimeError(f"{out} is not whole: {report.problems}")
    return Content(Dataset(out).dataset_id, rows_of(out))


def undisturbed(videos: Path, out: Path) -> Content:
    """The dataset that nobody disturbs, made without Ray."""
    done = tokenize(videos, out, *PIXELS)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return content(out)


def strike(
    videos: Path, out: Path, victim: str, rng: random.Random, then: tuple[str, ...] = ON_RAY, **extra: str
) -> Strike:
    """One kill -9 at a random moment, and a run to the end (`then`: its engine); RuntimeError when there is none.

    `extra` goes into the environment of the run that is killed.
    """
    units = len(list(videos.iterdir()))
    run = Run(videos, out, *PIXELS, *ON_RAY, **extra)
    run.wait_for_commits(rng.randint(1, units - 8))
    time.sleep(rng.uniform(0, LATE_S))
    committed = run.committed()
    struck = run.kill(victim, rng.choice)
    if victim != "worker":  # workers that outlived their driver for a moment may have committed
        committed = run.committed()
    elif run.end():
        raise RuntimeError(f"the run did not outlive a worker: {run.stderr()}")
    again = Run(videos, out, *PIXELS, *then)
    if again.end():
        raise RuntimeError(f"the run after the kill failed: {again.stderr()}")
    return Strike(struck, committed, run.planned(), content(out), (run, again))


class Drill:
    """Strikes one after another at one world, and keeps count."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        self._videos = make_world(folder / "clips", UNITS)
        self._expected = undisturbed(self._videos, folder / "undisturbed")
        self._runs: list[Run] = []
        self.counts: Counter[str] = Counter()

    def victims(self, kills: int) -> list[str]:
        """Each about as often, in random order."""
        chosen = [VICTIMS[i % len(VICTIMS)] for i in range(kills)]
        self._rng.shuffle(chosen)
        return chosen

    def kill(self, victim: str) -> None:
        """Strikes until it counts, at most TRIES times; prints one line a strike."""
        for _ in range(TRIES):
            started = time.monotonic()
            verdict, said = self._strike(victim)
            print(f"kill -9 of {victim:10} · {said} · {time.monotonic() - started:.0f} s", flush=True)
            self.counts[verdict] += 1
            if verdict != "missed":
                break
        self.counts[victim] += 1

    def _strike(self, victim: str) -> tuple[str, str]:
        """The verdict (same, different, failed, missed), and a line about it."""
        out = Path(tempfile.mkdtemp(dir=self._folder)) / "set"
        then = self._rng.choice((ON_RAY, WITHOUT_RAY))
        try:
            done = strike(self._videos, out, victim, self._rng, then)
        except RuntimeError as error:
            return "failed", f"failed: {error}"
        self._runs += done.runs
        shutil.rmtree(out.parent)
        same = "same" if done.content == self._expected else "different"
        verdict = same if done.counts else "missed"
        where = f"{done.committed:2d} of {done.planned} units committed"
        return verdict, f"{where}, finished {'on' if then == ON_RAY else 'without'} Ray · {verdict}"

    def check_processes(self) -> None:
        """Counts the runs of which a process stays behind."""
        for run in self._runs:
            try:
                run.wait_until_gone()
            except RuntimeError as error:
                print(error)
                self.counts["haunting"] += 1


def many_files(folder: Path, count: int) -> int:
    """Tokenizes so many tiny pictures on Ray; how many have a row. Prints how long it took."""
    pictures = write_pictures(folder / "pictures", count)
    started = time.monotonic()
    run = Run(pictures, folder / "many", "--tokenizer", "dct-512", *ON_RAY)
    if run.end():
        print(f"the run over {count} pictures failed: {run.stderr()}")
        return 0
    seconds = time.monotonic() - started
    rows = len(Dataset(folder / "many"))
    print(f"{count} tiny pictures: {rows} rows in {seconds:.0f} s, {count / seconds:,.0f} a second")
    return rows
