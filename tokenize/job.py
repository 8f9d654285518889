"""A job: everything that units of one dataset share. Content settings decide the rows; the rest may change freely."""

from dataclasses import dataclass, field
from typing import Any

from toto.config import DatasetConfig, TokenizerConfig
from toto.errors import UsageError
from toto.tokenize.resize import FILTER_NAME
from toto.tokenize.tokenizer_checks import checked_spec, refuse_other
from toto.tokenize.tokenizer_spec import FILES_OF_WEIGHTS, has_weights, portable, tokenizer_spec
from toto.tokenize.tokenizers.identity import with_id
from toto.tokenize.view_rules import check_views, frame_rule, stored_views
from toto.tokenizers import Tokenizer, load


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
    device: str = "cpu"  # of the tokenizer: cpu or cuda
    loading: dict[str, Any] = field(default_factory=dict)  # of the tokenizer: where its weights are, in full; or none

    def make_tokenizer(self) -> Tokenizer:
        """The tokenizer, made in the process that asks; UserError when its weights cannot be had there."""
        made = load({**self.tokenizer, **self.loading}, self.device)
        refuse_other(self.tokenizer["name"], made, self.tokenizer)
        return made

    @property
    def is_untrained(self) -> bool:
        """Whether its network has random weights: good for a plan alone."""
        return bool(self.loading.get("untrained"))

    @property
    def has_codes(self) -> bool:
        """False for the tokenizer `none`."""
        return bool(self.tokenizer["vocab_size"])

    @property
    def cells(self) -> int:
        """Codes of a square frame; of pixels-only rows what a 16×16 grid would have, to size units."""
        side = self.settings["resolution"] // self.tokenizer["patch"] if self.has_codes else 16
        return int(side * side)


def make_job(config: DatasetConfig, tokenizer: TokenizerConfig, out: str, untrained: bool = False) -> Job:
    """The job of a configuration; raises UsageError where dataset and tokenizer do not fit.

    `untrained`: of a network whose weights are not here, with random ones: for plans, which then fetch nothing.
    """
    check_views(config)
    asked = tokenizer_spec(tokenizer)
    without = {"untrained": True} if untrained and not has_weights(asked) else {}
    spec = checked_spec(asked["name"], load(asked | without))
    spec = spec if "id" in spec else with_id(spec)  # a plug-in may leave that to us
    loading = {key: asked[key] for key in FILES_OF_WEIGHTS if key in asked and not without}
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
        {**spec, **{key: portable(uri) for key, uri in loading.items()}},
        animated=config.layout in ("folder", "webdataset"),
        timeout_s=config.decode_timeout_s,
        memory_mb=config.decode_memory_mb,
        device=asked.get("device", "cpu"),
        loading=loading | without,
    )


def content_settings(config: DatasetConfig) -> dict[str, Any]:
    """The settings that decide which rows a dataset has and what is in them."""
    return {
        "layout": config.layout,
        "filter": FILTER_NAME,
        "labels": config.labels,
        "held_out": config.held_out,
        **frame_rule(config),
        **{
            name: getattr(config, name)
            for name in ("crop", "resolution", "run_frames", "min_frames", "keep_pixels", "seed")
        },
        "views": stored_views(config),
        # Where they are used only: datasets that were made before there was such a setting keep their ids.
        **{name: value for name in ("variant", "fold", "flips", "most_frames") if (value := getattr(config, name))},
        **({"protocols": sorted(config.protocols)} if config.protocols else {}),
    }
