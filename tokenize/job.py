"""A job: everything that units of one dataset share. Content settings decide the rows; the rest may change freely."""

from dataclasses import dataclass
from typing import Any

from toto.config import DatasetConfig, TokenizerConfig
from toto.errors import UsageError
from toto.tokenize.resize import FILTER_NAME
from toto.tokenizers import load


@dataclass(frozen=True)
class Job:
    """One dataset, one tokenizer, one target. Workers get it whole; it is small and can be pickled."""

    name: str
    root: str  # where the sources lie; may move between runs
    out: str
    settings: dict[str, Any]  # fixed by the first plan: another value would give other rows
    tokenizer: dict[str, Any]
    animated: bool  # pictures of two frames and more are videos
    timeout_s: float
    memory_mb: int

    @property
    def has_codes(self) -> bool:
        """False for the tokenizer `none`."""
        return bool(self.tokenizer["vocab_size"])

    @property
    def cells(self) -> int:
        """Codes of a square frame; of pixels-only rows what a 16×16 grid would have, to size units."""
        side = self.settings["resolution"] // self.tokenizer["patch"] if self.has_codes else 16
        return int(side * side)


def make_job(config: DatasetConfig, tokenizer: TokenizerConfig, out: str) -> Job:
    """The job of a configuration; raises UsageError where dataset and tokenizer do not fit."""
    spec = load(tokenizer_spec(tokenizer)).spec
    if spec["vocab_size"] and config.resolution % spec["patch"]:
        raise UsageError(
            f"datasets.{config.name}.resolution: {config.resolution} is not a multiple of the patch of "
            f"{tokenizer.name} ({spec['patch']} pixels)"
        )
    if not spec["vocab_size"] and not config.keep_pixels:
        raise UsageError(f"tokenizer {tokenizer.name!r} keeps no codes: set datasets.{config.name}.keep_pixels too")
    return Job(
        config.name,
        config.root,
        out,
        content_settings(config),
        spec,
        animated=config.layout == "folder",
        timeout_s=config.decode_timeout_s,
        memory_mb=config.decode_memory_mb,
    )


def tokenizer_spec(config: TokenizerConfig) -> dict[str, Any]:
    """What a tokenizer is made from, before its own hash is known."""
    if config.backend == "none":
        return {"name": "none"}
    names = ("vocab_size", "luma_coefficients", "seed")
    return {"name": config.backend, **{name: getattr(config, name) for name in names}}


def content_settings(config: DatasetConfig) -> dict[str, Any]:
    """The settings that decide which rows a dataset has and what is in them."""
    rules = {name: getattr(config, name) for name in ("stride", "fps", "uniform")}
    sampling = {name: value for name, value in rules.items() if value is not None} or {"stride": 4}
    return {
        "layout": config.layout,
        "filter": FILTER_NAME,
        "labels": config.labels,
        "held_out": config.held_out,
        **{"stride": None, "fps": None, "uniform": None, **sampling},
        **{
            name: getattr(config, name)
            for name in ("crop", "resolution", "views", "run_frames", "min_frames", "keep_pixels", "seed")
        },
        # Where they are used only: datasets that were made before there was such a setting keep their ids.
        **{name: value for name in ("variant", "fold", "flips") if (value := getattr(config, name))},
        **({"protocols": list(config.protocols)} if config.protocols else {}),
    }
