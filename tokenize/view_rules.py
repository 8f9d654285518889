"""What `flips`, `most_frames`, `protocols` and layouts with frame lists ask of other settings, told before any plan.

DatasetConfig ─▶ UsageError that names the keys, or: views of every run, the rule that chooses frames
"""

from typing import Any

from toto.config import DatasetConfig
from toto.errors import UsageError
from toto.plain import counted
from toto.shards.protocols import Protocol, parse

MOST_VIEWS = 256  # `view` of a row is uint8
MOMENT_LAYOUTS = ("ego4d-sta",)  # their annotations name the frames: stride, fps and uniform say nothing there


def check_views(config: DatasetConfig) -> None:
    """Raises UsageError where flips, most_frames, protocols or moments do not go with the rest."""
    where = f"datasets.{config.name}"
    if stored_views(config) > MOST_VIEWS:
        raise UsageError(f"{where}.flips: {config.views} views and as many mirrored ones are more than {MOST_VIEWS}")
    if config.layout in MOMENT_LAYOUTS and config.run_frames != "all":
        raise UsageError(f"{where}.run_frames: layout {config.layout} keeps a video's frames in one row; set all")
    if config.layout in MOMENT_LAYOUTS and config.protocols:
        raise UsageError(f"{where}.protocols: layout {config.layout} keeps the frames that its annotations name")
    if config.most_frames and (config.protocols or config.uniform or config.layout in MOMENT_LAYOUTS):
        raise UsageError(f"{where}.most_frames: it goes with stride or fps alone, which need no frame beyond the last")
    if config.most_frames and config.most_frames < config.min_frames:
        raise UsageError(
            f"{where}.most_frames: {config.most_frames} is below min_frames ({config.min_frames}), "
            "so every video would be too short"
        )
    for name in config.protocols:
        try:
            _check_protocol(config, parse(name), where)
        except UsageError as error:
            raise UsageError(f"{where}.protocols: {error}") from None
    if len(set(config.protocols)) < len(config.protocols):
        raise UsageError(f"{where}.protocols: one stands there twice")


def stored_views(config: DatasetConfig) -> int:
    """Rows of every run: its views, and with flips as many mirrored ones after them."""
    return config.views * (1 + config.flips)


def frame_rule(config: DatasetConfig) -> dict[str, Any]:
    """stride, fps and uniform, one of them set; none, and `moments`, where the annotations name the frames."""
    if config.layout in MOMENT_LAYOUTS:
        return {"stride": None, "fps": None, "uniform": None, "moments": True}
    rules = {name: getattr(config, name) for name in ("stride", "fps", "uniform")}
    chosen = {name: value for name, value in rules.items() if value is not None} or {"stride": 4}
    return {"stride": None, "fps": None, "uniform": None, **chosen}


def _check_protocol(config: DatasetConfig, protocol: Protocol, where: str) -> None:
    if config.stride is None:
        raise UsageError(f"{protocol.name} counts decoded frames: set {where}.stride, not fps or uniform")
    if config.run_frames != "all":
        raise UsageError(f"{protocol.name} spreads clips over whole videos: set {where}.run_frames to all")
    if not protocol.views(config.crop):
        fitting = "three" if protocol.crops == 3 else "center, three, full or squash"
        raise UsageError(
            f"{protocol.name} shows {counted(protocol.crops, 'crop')}, {where}.crop {config.crop} has others; "
            f"set {fitting}"
        )
