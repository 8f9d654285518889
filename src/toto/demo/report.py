"""The page at the end of the demo: what went in, what came out, what it took, and the proof.

Story (dataset, steps, measurement, where sources are) -> one HTML file, its parts in reading order
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from toto import __version__
from toto.demo import machine
from toto.demo.examples import WINDOW_FRAMES, class_names, examples
from toto.demo.frame import one_frame, variety
from toto.demo.learned import figures, learned_html
from toto.demo.learning import Places
from toto.demo.measured import Measured
from toto.demo.steps import Step
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.look import page
from toto.shards.look.clips import Clip, Painter
from toto.shards.look.originals import Find, Originals
from toto.shards.look.view import shot

VIDEOS, IMAGES = 8, 10  # shown at most
MOST_QUARANTINED = 200  # listed by name


@dataclass(frozen=True)
class Story:
    """All that the page tells."""

    title: str
    uri: str
    dataset: Dataset
    steps: Sequence[Step]
    measured: Measured | None
    find: Find
    learned: Places | None = None  # what the second half of the road left


def report_html(story: Story) -> str:
    """The whole page."""
    dataset, originals = story.dataset, Originals(story.find)
    painter = Painter(dataset, originals)
    videos = [painter.clip(pick) for pick in examples(dataset, "video", VIDEOS)]
    images = [painter.clip(pick) for pick in examples(dataset, "image", IMAGES)]
    names = class_names(dataset)
    parts = [
        _head(story),
        one_frame(dataset, max([*videos, *images], key=variety)),
        _clips("Videos", _sampling(dataset), videos, names, "cards wide"),
        _clips("Pictures", "Every picture is a row of its own.", images, names, "cards"),
        f'<p class="soft">{page.text(originals.note)}</p>' if originals.note else "",
        *(learned_html(story.learned) if story.learned else []),
        _took(story),
        _card(dataset),
        _commands(story.steps),
        _reading(story),
        _foot(dataset),
    ]
    return page.document(_title(story), parts)


def reading_code(uri: str, dataset: Dataset) -> str:
    """A few lines of Python that read the dataset at `uri` and turn tokens back into pictures."""
    if dataset.windows(WINDOW_FRAMES):
        window = f"dataset.window(0, frames={WINDOW_FRAMES})"
        remark = f"# any {WINDOW_FRAMES} consecutive frames: .tokens, .source, .pts_us"
    else:
        window, remark = "dataset.row(0)", "# .tokens, .source, .pts_us"
    return f"""import toto.tokenizers

dataset = toto.Dataset({uri!r})
window = {window}  {remark}
row = dataset.row(len(dataset) - 1)  # a run of frames, or a picture: .codes is [frames, height, width]
pictures = toto.tokenizers.load(dataset.tokenizer).decode(row.codes)  # uint8 [frames, 3, height, width]
"""


def _title(story: Story) -> str:
    return f"{story.title}: tokens, model, evaluation" if story.learned else f"{story.title}, as tokens"


def _head(story: Story) -> str:
    totals, spec = story.dataset.info["totals"], story.dataset.tokenizer
    files = "One video or picture" if totals["sources"] == 1 else f"{totals['sources']:,} videos and pictures"
    trained = "a small model was trained on, here" if story.learned else "a language model can be trained on"
    lead = (
        f"{files} became {totals['tokens']:,} tokens that {trained}. "
        "Below: what the tokens look like when they are turned back into pictures, what it took, and "
        "how to check or repeat all of it."
    )
    sources = story.dataset.sources()
    source_bytes = pc.sum(sources.filter(pc.equal(sources["status"], "ok"))["size"]).as_py() or 0
    measured = story.measured
    speed = ("not measured", "the run went on from an earlier one")
    if measured:
        speed = (f"{measured.tokens / measured.seconds:,.0f}", f"{measured.seconds:.1f} s, start included")
    tiles = [
        ("Sources", f"{totals['sources']:,}", _unusable(totals["quarantined"])),
        ("Frames", f"{totals['frames']:,}", _hours(totals["hours"])),
        ("Tokens", f"{totals['tokens']:,}", f"{spec['vocab_size']:,} different codes"),
        ("On disk", _size(totals["bytes"]), f"made from {_size(source_bytes)}"),
        ("Tokens a second", *speed),
        *(figures(story.learned) if story.learned else [("Verified", "whole", "every byte was read again")]),
    ]
    road = "videos, tokens, model, evaluation" if story.learned else "videos in, verified token shards out"
    over = f'<p class="over">toto · {road}</p>'
    return f'{over}<h1>{page.name(_title(story))}</h1><p class="lead">{page.text(lead)}</p>{page.tiles(tiles)}'


def _sampling(dataset: Dataset) -> str:
    settings = dataset.info["settings"]
    if settings["stride"]:
        frames = "every frame" if settings["stride"] == 1 else f"one frame in {settings['stride']}"
    elif settings["fps"]:
        frames = f"frames at {settings['fps']:g} a second"
    else:
        frames = f"{counted(settings['uniform'], 'frame')}, evenly over the video"
    return page.text(
        f"Kept: {frames}; crop: {settings['crop']}, {settings['resolution']} pixels. "
        f"Left the source, right what its tokens decode to: the first {WINDOW_FRAMES} kept frames, in real time."
    )


def _clips(heading: str, lead: str, clips: Sequence[Clip], names: dict[str, str], style: str) -> str:
    if not clips:
        return ""
    cards = (page.figure(*shot(clip), _caption(clip, names)) for clip in clips)
    return page.section(heading, lead, f'<div class="{style}">{"".join(cards)}</div>')


def _caption(clip: Clip, names: dict[str, str]) -> str:
    record, codes = (
        clip.pick.row.record,
        clip.decoded.shape[0] * clip.pick.row.record.grid_h * clip.pick.row.record.grid_w,
    )
    label = names.get(record.source)
    top = f"<b>{page.name(label)}</b><br>" if label and label not in record.source.split("/") else ""
    frames = f"{counted(len(clip.decoded), 'frame')}, " if clip.pick.is_video else ""
    return f'{top}{page.name(record.source)}<br><span class="soft">{frames}{counted(codes, "token")}</span>'


def _took(story: Story) -> str:
    rows = [(" ".join(step.line.split()[:2]), f"{step.seconds:.1f} s") for step in story.steps]
    body = [f"<div>{page.table(('command', 'time'), rows)}{_speed(story)}</div>"]
    body.append(f"<div>{page.facts(machine.facts())}</div>")
    return page.section("What it took", "On this machine:", f'<div class="columns">{"".join(body)}</div>')


def _speed(story: Story) -> str:
    measured = story.measured
    if measured is None:
        return '<p class="soft">No throughput: this dataset was not made in one go, or not here.</p>'
    counts = (measured.frames_decoded, measured.frames_kept, measured.tokens)
    decoded, kept, tokens = (f"<b>{count / measured.seconds:,.0f}</b>" for count in counts)
    when = f"Measured when the dataset was made, {measured.day}, on {measured.machine}."
    return (
        f"<p>{decoded} frames decoded, {kept} kept and {tokens} tokens a second: "
        f"{counted(measured.frames_decoded, 'frame')} in {measured.seconds:.1f} s, "
        "the start of Python and of the workers included. "
        f'<span class="soft">{page.text(when)}</span></p>'
    )


def _card(dataset: Dataset) -> str:
    info = dataset.info
    columns = ("shards", "rows", "frames", "tokens")
    parts = [*info["splits"].items(), *([("all", info["totals"])] if len(info["splits"]) > 1 else [])]
    splits = [(name, *(part[column] for column in columns), round(part["bytes"] / 1000)) for name, part in parts]
    spec = [(key, str(value)) for key, value in sorted(dataset.tokenizer.items())]
    settings = [(key, str(value)) for key, value in info["settings"].items() if value is not None]
    columns_html = (
        f"<div><h3>Tokenizer</h3>{page.facts(spec)}</div>"
        f"<div><h3>How frames were chosen</h3>{page.facts(settings)}</div>"
    )
    return page.section(
        "Dataset card",
        f"Dataset id <code>{page.text(dataset.dataset_id)}</code>: the same content has the same id, wherever and "
        "however it was made.",
        page.table(("split", *columns, "kB"), splits),
        f'<div class="columns">{columns_html}</div>',
        _quarantine(dataset),
    )


def _quarantine(dataset: Dataset) -> str:
    bad = dataset.quarantine().select(["key", "reason", "detail"]).to_pylist()
    if not bad:
        return "<h3>Quarantine</h3><p>Empty: every source gave tokens.</p>"
    bad.sort(key=lambda row: (row["reason"], row["key"]))
    rows = [(row["key"], row["reason"], row["detail"] or "") for row in bad[:MOST_QUARANTINED]]
    more = f"<p>… and {len(bad) - len(rows):,} more, in quarantine.parquet.</p>" if len(bad) > len(rows) else ""
    lead = "<p>Sources that gave no tokens. The rest was not held up by them.</p>"
    return f"<h3>Quarantine</h3>{lead}{page.table(('source', 'reason', 'detail'), rows)}{more}"


def _commands(steps: Sequence[Step]) -> str:
    blocks = (
        f"<h3>{page.text(step.title)}</h3><pre><b>$ {page.text(step.line)}</b>\n{page.text(step.output.rstrip())}</pre>"
        for step in steps
    )
    lead = "All that was run, in order. Run it again: what is done is not done twice."
    return page.section("Every command", lead, *blocks)


def _reading(story: Story) -> str:
    code = page.text(reading_code(story.uri, story.dataset))
    lead = "Reading needs the package <code>toto-video</code> without extras: no torch, no video library."
    return page.section("Read it from Python", lead, f"<pre>{code}</pre>")


def _foot(dataset: Dataset) -> str:
    sealed = page.text(dataset.info["sealed_at"])
    return (
        f"<footer>toto {__version__} · sealed {sealed} · dataset <code>{page.text(dataset.dataset_id)}</code></footer>"
    )


def _unusable(count: int) -> str:
    return f"{count:,} more gave none, see quarantine" if count else "every one could be used"


def _hours(hours: float) -> str:
    if not hours:
        return "pictures only"
    return f"of {hours:,.1f} hours of video" if hours >= 1 else f"of {hours * 60:,.1f} minutes of video"


def _size(count: int) -> str:
    """Bytes in words; 1 MB is 10^6 bytes."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            size = count / factor
            return f"{size:,.{0 if size >= 100 else 1 if size >= 10 else 2}f} {unit}"
    return f"{count} B"
