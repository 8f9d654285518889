"""What a training step read: the sequences of its batch, with sources, frame numbers, times, and pictures.

runs/<name>/recipe.json ─Stream─▶ sequences of the step ─▶ lines, JSON, or a picture of their clips
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.files import write_whole
from toto.plain import counted
from toto.shards.look import page
from toto.shards.look.clips import Painter, Pick, first
from toto.shards.look.originals import Originals
from toto.shards.look.view import View, format_of, shot, write_view
from toto.shards.row import Window
from toto.shards.stream import Sequence, Stream
from toto.shards.streaming.keyed import MASK

MOST_CLIPS = 32  # whose pictures are shown
PAGE_FRAMES = 32  # of a clip


@dataclass(frozen=True)
class Seen:
    """The batch of a step, or one sequence of it."""

    stream: Stream
    step: int  # as metrics.jsonl counts: 1 is the first
    first: int  # number, in the batch, of the first of `sequences`
    sequences: list[Sequence]

    @property
    def hash(self) -> int:
        """The batch's hash, when the whole batch is here."""
        return sum(sequence.hash for sequence in self.sequences) & MASK

    @property
    def picks(self) -> list[Pick]:
        """Every clip, titled by its place in the batch."""
        return [pick for i, sequence in enumerate(self.sequences, self.first) for pick in _picks(i, sequence)]


def seen_at(stream: Stream, step: int, sequence: int | None = None) -> Seen:
    """What the `step`-th step read (1 is the first): all of its batch, or one sequence (0 is the first)."""
    batch = stream.recipe.batch_sequences
    if step < 1:
        raise UsageError(f"--step {step}: the first step is 1")
    if sequence is not None and not 0 <= sequence < batch:
        raise UsageError(f"--sequence {sequence}: a step of this run has {counted(batch, 'sequence')}, the first is 0")
    wanted = range(batch) if sequence is None else range(sequence, sequence + 1)
    start = (step - 1) * batch
    found = stream.sequences(range(start + wanted.start, start + wanted.stop))
    return Seen(stream, step, wanted.start, list(found))


def steps_of(run: Path) -> int | None:
    """After how many steps a training run ends, as its run.json says; None where it does not."""
    try:
        steps = json.loads((run / "run.json").read_text())["recipe"]["steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return steps if isinstance(steps, int) else None


def seen_lines(found: Seen) -> list[str]:
    """One line for each clip: where it stands in the batch, part and epoch, source, frames, and seconds in the file."""
    said = []
    for i, sequence in enumerate(found.sequences, found.first):
        head = f"{sequence.part}, epoch {sequence.epoch}"
        said += [f"{pick.caption} · {head}{_seconds(pick)}" for pick in _picks(i, sequence)]
    return said


def seen_json(found: Seen) -> dict[str, Any]:
    """The same as data; `batch` is what metrics.jsonl has for the step, null where one sequence was asked for."""
    whole = len(found.sequences) == found.stream.recipe.batch_sequences
    return {
        "step": found.step,
        "recipe": found.stream.recipe.id,
        "batch": f"{found.hash:016x}" if whole else None,
        "sequences": [
            {
                "number": sequence.number,
                "part": sequence.part,
                "epoch": sequence.epoch,
                "hash": f"{sequence.hash:016x}",
                "dataset_id": found.stream.dataset(sequence.part).dataset_id,
                "clips": [_clip_facts(clip) for clip in sequence.clips],
            }
            for sequence in found.sequences
        ],
    }


def write_seen(found: Seen, originals: Originals, out: Path) -> tuple[Path, list[str]]:
    """Pictures of the clips, at most MOST_CLIPS, in the format that the suffix says; the path and lines of remarks."""
    remarks, picks = [], found.picks
    if len(picks) > MOST_CLIPS:
        remarks.append(f"pictures of the first {MOST_CLIPS} of {len(picks)} clips; --sequence N shows another")
    dataset = found.stream.dataset(found.sequences[0].part)  # one tokenizer made the codes of every part
    view = View(dataset, Painter(dataset, originals), picks[:MOST_CLIPS])
    if format_of(out) == ".html":
        write_whole(out, _page(found, view).encode())
        return out, remarks
    written, more = write_view(view, out)
    return written, remarks + more


def _picks(i: int, sequence: Sequence) -> list[Pick]:
    images = len(sequence.clips) > 1
    return [
        Pick(f"sequence {i}, image {k}" if images else f"sequence {i}", clip.row, clip.positions)
        for k, clip in enumerate(sequence.clips)
    ]


def _seconds(pick: Pick) -> str:
    times = pick.row.pts_us
    if times is None:
        return ""
    shown = times[pick.positions] / 1e6
    return f" · {shown[0]:.3f} s" if len(shown) == 1 else f" · {shown[0]:.3f} to {shown[-1]:.3f} s"


def _clip_facts(clip: Window) -> dict[str, Any]:
    record, times = clip.row.record, clip.pts_us
    return {
        "source": record.source,
        "run": record.run,
        "view": record.view,
        "row_id": record.row_id.hex(),
        "start": clip.start,
        "frame_index": clip.frame_index.tolist(),
        "pts_us": None if times is None else np.asarray(times).tolist(),
        "crop": list(record.crop),
    }


def _page(found: Seen, view: View) -> str:
    names = ", ".join(page.text(name) for name in found.stream.parts)
    lead = (
        f"{len(found.sequences)} of {counted(found.stream.recipe.batch_sequences, 'sequence')}, "
        f"{found.stream.context:,} tokens each. Parts: {names}. "
        f"Recipe <code>{page.text(found.stream.recipe.id)}</code>."
    )
    clips = (view.painter.clip(first(pick, PAGE_FRAMES)) for pick in view.picks)
    cards = [page.figure(*shot(clip), page.name(clip.pick.caption)) for clip in clips]
    title = f"Step {found.step:,}: what it read"
    heading = f'<p class="over">toto-shards seen</p><h1>{page.text(title)}</h1><p class="lead">{lead}</p>'
    return page.document(title, [heading, f'<div class="cards wide">{"".join(cards)}</div>'])
