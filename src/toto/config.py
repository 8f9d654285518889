"""pipelines.yaml -> frozen dataclasses: everything a run can refer to by name, read strictly.

1. `load` takes the files of `--config` (a further one is laid over the one before), else ./pipelines.yaml,
   else the packaged file, then every `--set datasets.k400.stride=8` in turn.
2. `Pipelines.dataset(name)` expands `${VAR}`, `${VAR:-default}` and `~` in its paths, so that a variable that
   is not set disturbs only the entry that needs it.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from toto import config_layers as layers
from toto import config_mixture
from toto.config_entries import THREE_VIEWS, DatasetConfig, ModelConfig, RecipeConfig, TaskConfig, TokenizerConfig
from toto.config_mixture import MixtureConfig
from toto.config_pins import pinned
from toto.config_rules import rules
from toto.errors import UsageError
from toto.plain import counted
from toto.uris import refuse_secrets, shown

FILE = "pipelines.yaml"
OF_WEIGHTS = ("weights", "weights_sha256", "decoder", "decoder_sha256", "model_config")  # may hold variables
PACKAGED = ("tokenizers", "models", "recipes", "tasks")  # a file without them gets the packaged ones
Entry = TypeVar("Entry")
_VARIABLE = re.compile(r"\$\{(?:([A-Za-z_]\w*)(?::-([^${}]*))?\})?")


SECTIONS: layers.Sections = {
    "datasets": rules(DatasetConfig),
    "tokenizers": rules(TokenizerConfig),
    "models": rules(ModelConfig),
    "recipes": rules(RecipeConfig),
    "tasks": rules(TaskConfig),
    "mixtures": config_mixture.VALUES,
}


@dataclass(frozen=True)
class Pipelines:
    """A whole configuration; `datasets` hold paths as written, `dataset(name)` expanded ones."""

    datasets: dict[str, DatasetConfig]
    tokenizers: dict[str, TokenizerConfig]
    models: dict[str, ModelConfig]
    recipes: dict[str, RecipeConfig]
    tasks: dict[str, TaskConfig]
    mixtures: dict[str, MixtureConfig]
    path: str  # the file it came from

    def dataset(self, name: str, anywhere: bool = False) -> DatasetConfig:
        """An entry ready for use; UsageError when there is none, or a variable in its paths is not set.

        `anywhere`: paths stay as they are written, for questions that need no data.
        """
        config = _find("dataset", self.datasets, name, self.path)
        if anywhere:
            return config
        source = f"\n{name} comes from {config.homepage}" if config.homepage else ""
        root = _absolute(expand(config.root, f"datasets.{name}.root", source))
        refuse_secrets(root, f"sources (datasets.{name}.root)")
        if config.annotations is None:
            return replace(config, root=root)
        annotations = _absolute(expand(config.annotations, f"datasets.{name}.annotations", source))
        refuse_secrets(annotations, f"lists (datasets.{name}.annotations)")
        return replace(config, root=root, annotations=annotations)

    def tokenizer(self, name: str) -> TokenizerConfig:
        """An entry of `tokenizers:` ready for use; UsageError when there is none, or a variable is not set."""
        config = _find("tokenizer", self.tokenizers, name, self.path)
        texts = {key: getattr(config, key) for key in OF_WEIGHTS}
        where = f"tokenizers.{name}"
        expanded = {key: None if text is None else expand(text, f"{where}.{key}") for key, text in texts.items()}
        return replace(config, **pinned(expanded, where))

    def model(self, name: str) -> ModelConfig:
        """An entry of `models:`; UsageError when there is none."""
        return _find("model", self.models, name, self.path)

    def recipe(self, name: str) -> RecipeConfig:
        """An entry of `recipes:`; UsageError when there is none."""
        return _find("recipe", self.recipes, name, self.path)

    def task(self, name: str) -> TaskConfig:
        """An entry of `tasks:`; UsageError when there is none."""
        return _find("task", self.tasks, name, self.path)

    def mixture(self, name: str) -> MixtureConfig:
        """An entry of `mixtures:`; a dataset's own name means that dataset alone. UsageError when there is neither."""
        if name not in self.mixtures and name in self.datasets:
            return MixtureConfig({name: 1})
        return _find("mixture", self.mixtures, name, self.path)

    def shards(self, dataset: str, tokenizer: str | None = None) -> str:
        """Where a dataset's shards go, and are found, by default: ${TOTO_DATA:-data}/DATASET/TOKENIZER-R."""
        config = _find("dataset", self.datasets, dataset, self.path)
        chosen = _find("tokenizer", self.tokenizers, tokenizer or config.tokenizer, self.path)
        return f"{os.environ.get('TOTO_DATA') or 'data'}/{dataset}/{chosen.name}-{config.resolution}"


def load(paths: Sequence[str] = (), overrides: Sequence[str] = ()) -> Pipelines:
    """The configuration of `--config` paths and `--set` overrides; UsageError in one or two lines.

    Setting one of stride, fps and uniform in a later layer replaces the other two.
    """
    found = list(paths) or ([FILE] if Path(FILE).is_file() else [])
    merged = layers.merge([layers.from_file(path, SECTIONS) for path in found] or [_packaged()])
    for section in PACKAGED:  # a file may list its own datasets only
        if section not in merged:
            merged[section] = _packaged()[section]
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


def _absolute(place: str) -> str:
    """Workers of a cluster have another current folder than the one who asks."""
    return place if "://" in place else os.path.join(os.getcwd(), place)


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
                raise UsageError(f"--set {shown(override)}: {layers.unknown('entry of ' + section, entry, known)}")


def _build(merged: layers.Layer, path: str) -> Pipelines:
    datasets = {k: _dataset(k, v, path) for k, v in merged.get("datasets", {}).items()}
    tokenizers = _entries(TokenizerConfig, "tokenizers", merged, path)
    models = _entries(ModelConfig, "models", merged, path)
    recipes = _entries(RecipeConfig, "recipes", merged, path)
    tasks = _entries(TaskConfig, "tasks", merged, path)
    for name, config in datasets.items():
        if config.tokenizer not in tokenizers:
            problem = layers.unknown("tokenizer", config.tokenizer, tokenizers)
            raise UsageError(f"{path}: datasets.{name}.tokenizer: {problem}")
    mixtures = {
        k: config_mixture.mixture(v, datasets, f"{path}: mixtures.{k}") for k, v in merged.get("mixtures", {}).items()
    }
    for name, model in models.items():
        check_model(model, f"{path}: models.{name}")
    return Pipelines(datasets, tokenizers, models, recipes, tasks, mixtures, path)


def _dataset(name: str, values: dict[str, Any], path: str) -> DatasetConfig:
    where = f"{path}: datasets.{name}"
    _require(DatasetConfig, values, where)
    crop, views = values.get("crop", "random"), values.get("views")
    fixed = THREE_VIEWS if crop == "three" else 1
    if crop != "random" and views not in (None, fixed):
        raise UsageError(f"{where}.views: {views}, but crop {crop} has {fixed}; set that, or leave views out")
    if values.get("labels", "none") != "none" and values["layout"] != "folder":
        raise UsageError(f"{where}.labels: for layout folder only; {values['layout']} has labels of its own")
    if values.get("held_out") and values["layout"] not in ("folder", "webdataset"):
        problem = f"for layouts folder and webdataset only; {values['layout']} has splits of its own"
        raise UsageError(f"{where}.held_out: {problem}")
    return DatasetConfig(name=name, **values)


def _entries(kind: Callable[..., Entry], section: str, merged: layers.Layer, path: str) -> dict[str, Entry]:
    entries = {}
    for name, values in merged[section].items():
        _require(kind, values, f"{path}: {section}.{name}")
        entries[name] = kind(name=name, **values)
    return entries


def check_model(model: ModelConfig, where: str) -> None:
    """UsageError where the keys of a model do not go together; `where` begins the message."""
    if model.arch == "mamba":
        if model.heads or model.mlp_hidden:
            raise UsageError(f"{where}: mamba has no attention and no MLP; take heads and mlp_hidden away")
        return
    if not (model.heads and model.mlp_hidden):
        raise UsageError(f"{where}: arch {model.arch} needs heads and mlp_hidden")
    if model.dim % (2 * model.heads):  # rotary positions turn pairs of a head's channels
        raise UsageError(
            f"{where}: dim {model.dim} over {counted(model.heads, 'head')} gives "
            f"{model.dim / model.heads:g} channels a head; they must be an even whole number"
        )


def _require(cls: Any, values: dict[str, Any], where: str) -> None:
    for key, rule in rules(cls).items():
        if rule.required and key not in values:
            raise UsageError(f"{where}.{key}: missing; it must be {rule.allowed}")
