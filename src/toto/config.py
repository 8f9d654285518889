"""pipelines.yaml -> frozen dataclasses: everything a run can refer to by name, read strictly.

1. `load` takes the files of `--config` (a further one is laid over the one before), else ./pipelines.yaml,
   else the packaged file, then every `--set datasets.k400.stride=8` in turn.
2. `Pipelines.dataset(name)` expands `${VAR}`, `${VAR:-default}` and `~` in its paths, so that a variable that
   is not set disturbs only the entry that needs it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from toto import config_layers as layers
from toto.config_rules import Rule, choice, names, number, rules, text, whole, whole_or
from toto.errors import UsageError
from toto.tokenizers import BUILT_IN

FILE = "pipelines.yaml"
LAYOUTS = ("folder", "kinetics", "imagenet", "demo")  # the readers of toto.tokenize.sources
THREE_VIEWS = 3
_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_]\w*)(?::-([^${}]*))?\})?")


@dataclass(frozen=True)
class DatasetConfig:
    """One entry of `datasets:`: where sources are and how frames are taken from them (paper §3.4)."""

    name: str  # its key in pipelines.yaml
    layout: str = choice(MISSING, *LAYOUTS)
    root: str = text()  # path or fsspec URI
    annotations: str | None = text(None)  # where the official lists are, if not under root
    split: tuple[str, ...] = names()  # none: every split that the layout has
    stride: int | None = whole(None, 1, 65_535)  # every n-th frame; 4 (the paper's) when none is set
    fps: float | None = number(None, 0.001, 1000)  # the grid of presentation times
    uniform: int | None = whole(None, 1, 65_535)  # that many frames, evenly over the video
    crop: str = choice("random", "random", "center", "three", "full", "squash")
    resolution: int = whole(128, 8, 4096, multiple=8)  # pixels of the short side
    views: int = whole(1, 1, 256)  # random crops of each run; `three` has 3
    run_frames: int | str = whole_or(64, "all", 1, 65_000)  # kept frames of a row
    min_frames: int = whole(16, 1, 65_535)  # kept frames below which a video goes to quarantine
    max_bad_fraction: float = number(0.02, 0, 1)
    seed: int = whole(0, 0, 2**63 - 1)
    labels: str = choice("none", "none", "folders")  # folder layout: the first sub-folder is the class
    keep_pixels: int | None = whole(None, 8, 1024)  # pixels of the short side stored beside the codes
    decode_timeout_s: float = number(60.0, 0.01, 86_400)  # seconds without a decoded frame
    decode_memory_mb: int = whole(4096, 64, 2**20)  # of the decoding child
    tokenizer: str = text("dct")  # a key of `tokenizers:`
    homepage: str = text("")  # where people get the data

    def __post_init__(self) -> None:
        if self.stride is None and self.fps is None and self.uniform is None:
            object.__setattr__(self, "stride", 4)
        if self.crop == "three":
            object.__setattr__(self, "views", THREE_VIEWS)


@dataclass(frozen=True)
class TokenizerConfig:
    """One entry of `tokenizers:`; the numbers are those of `dct`."""

    name: str  # its key in pipelines.yaml
    backend: str = choice(MISSING, *BUILT_IN)
    vocab_size: int = whole(8192, 2, 65_532)  # codes; with the four special ids they fit 16 bits
    luma_coefficients: int = whole(3, 1, 6)  # of the 64 of an 8×8 patch, lowest first
    seed: int = whole(0, 0, 2**63 - 1)  # of the codebook


SECTIONS: layers.Sections = {
    "datasets": rules(DatasetConfig),
    "tokenizers": rules(TokenizerConfig),
    "mixtures": Rule("a whole number from 0 to 10000", lambda v: type(v) is int and 0 <= v <= 10_000),
}


@dataclass(frozen=True)
class Pipelines:
    """A whole configuration; `datasets` hold paths as written, `dataset(name)` expanded ones."""

    datasets: dict[str, DatasetConfig]
    tokenizers: dict[str, TokenizerConfig]
    mixtures: dict[str, dict[str, int]]  # name -> dataset -> weight
    path: str  # the file it came from

    def dataset(self, name: str) -> DatasetConfig:
        """An entry ready for use; UsageError when there is none, or a variable in its paths is not set."""
        config = _find("dataset", self.datasets, name, self.path)
        source = f"\n{name} comes from {config.homepage}" if config.homepage else ""
        root = expand(config.root, f"datasets.{name}.root", source)
        if config.annotations is None:
            return replace(config, root=root)
        annotations = expand(config.annotations, f"datasets.{name}.annotations", source)
        return replace(config, root=root, annotations=annotations)

    def tokenizer(self, name: str) -> TokenizerConfig:
        """An entry of `tokenizers:`; UsageError when there is none."""
        return _find("tokenizer", self.tokenizers, name, self.path)


def load(paths: Sequence[str] = (), overrides: Sequence[str] = ()) -> Pipelines:
    """The configuration of `--config` paths and `--set` overrides; UsageError in one or two lines.

    Setting one of stride, fps and uniform in a later layer replaces the other two.
    """
    found = list(paths) or ([FILE] if Path(FILE).is_file() else [])
    merged = layers.merge([layers.from_file(path, SECTIONS) for path in found] or [_packaged()])
    if "tokenizers" not in merged:  # a file may list its own datasets only
        merged["tokenizers"] = _packaged()["tokenizers"]
    for override in overrides:
        layer = layers.from_override(override, SECTIONS)
        _check_target(layer, merged, override)
        merged = layers.merge([merged, layer])
    return _build(merged, " + ".join(found) or FILE)


def expand(path: str, where: str, advice: str = "") -> str:
    """Replaces `${VAR}`, `${VAR:-default}` and a leading `~`; UsageError names a variable that is not set."""

    def value(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if name is None:
            raise UsageError(f"{where}: {path!r}: write ${{NAME}} or ${{NAME:-default}}")
        found = os.environ.get(name) or default
        if not found:
            problem = f"the environment variable {name} is not set; set it, or --set {where}=PATH"
            raise UsageError(f"{where}: {problem}{advice}")
        return found

    return os.path.expanduser(_VARIABLE.sub(value, path))


def _packaged() -> layers.Layer:
    return layers.from_bytes(files("toto").joinpath(FILE).read_bytes(), FILE, SECTIONS)


def _find(what: str, entries: dict[str, Any], name: str, path: str) -> Any:
    if name not in entries:
        raise UsageError(f"{path}: {layers.unknown(what, name, entries)}")
    return entries[name]


def _check_target(layer: layers.Layer, merged: layers.Layer, override: str) -> None:
    for section, entries in layer.items():
        for entry in entries:
            known = merged.get(section, {})
            if entry not in known:
                raise UsageError(f"--set {override}: {layers.unknown('entry of ' + section, entry, known)}")


def _build(merged: layers.Layer, path: str) -> Pipelines:
    datasets = {k: _dataset(k, v, path) for k, v in merged.get("datasets", {}).items()}
    tokenizers = {k: _tokenizer(k, v, path) for k, v in merged["tokenizers"].items()}
    for name, config in datasets.items():
        if config.tokenizer not in tokenizers:
            problem = layers.unknown("tokenizer", config.tokenizer, tokenizers)
            raise UsageError(f"{path}: datasets.{name}.tokenizer: {problem}")
    mixtures = {k: _mixture(k, v, datasets, path) for k, v in merged.get("mixtures", {}).items()}
    return Pipelines(datasets, tokenizers, mixtures, path)


def _dataset(name: str, values: dict[str, Any], path: str) -> DatasetConfig:
    where = f"{path}: datasets.{name}"
    _require(DatasetConfig, values, where)
    crop, views = values.get("crop", "random"), values.get("views")
    fixed = THREE_VIEWS if crop == "three" else 1
    if crop != "random" and views not in (None, fixed):
        raise UsageError(f"{where}.views: {views}, but crop {crop} has {fixed}; set that, or leave views out")
    if values.get("labels", "none") != "none" and values["layout"] != "folder":
        raise UsageError(f"{where}.labels: for layout folder only; {values['layout']} has labels of its own")
    return DatasetConfig(name=name, **values)


def _tokenizer(name: str, values: dict[str, Any], path: str) -> TokenizerConfig:
    _require(TokenizerConfig, values, f"{path}: tokenizers.{name}")
    return TokenizerConfig(name=name, **values)


def _require(cls: type, values: dict[str, Any], where: str) -> None:
    for key, rule in rules(cls).items():
        if rule.required and key not in values:
            raise UsageError(f"{where}.{key}: missing; it must be {rule.allowed}")


def _mixture(name: str, weights: dict[str, int], known: dict[str, Any], path: str) -> dict[str, int]:
    for dataset in weights:
        if dataset not in known:
            raise UsageError(f"{path}: mixtures.{name}: {layers.unknown('dataset', dataset, known)}")
    if not 1 <= sum(weights.values()) <= 10_000:
        raise UsageError(f"{path}: mixtures.{name}: weights sum to {sum(weights.values())}, not 1 to 10000")
    return {dataset: weight for dataset, weight in weights.items() if weight}
