"""`toto-tokenize weights`: where the weights of the tokenizers come from, are, and whether they are right."""

from dataclasses import asdict, dataclass

import click

from toto import command
from toto.config import Pipelines, load
from toto.errors import UserError
from toto.options import config_options
from toto.shards.hashing import file_sha256
from toto.tokenize.sources.names import shown
from toto.tokenize.tokenizer_spec import tokenizer_spec
from toto.tokenize.tokenizers.sdvae import file_of
from toto.tokenize.weights import if_changed, known, obtain, other_bytes
from toto.tokenize.weights_convert import is_converted, stored

PACKAGES = (  # for who compares with them; tokenizing needs neither
    "dall-e, taming-transformers and diffusers are not needed: toto has networks of its own. To compare with them:\n"
    "pip install --no-deps dall-e==0.1 taming-transformers-rom1504==0.0.6 && pip install diffusers attrs einops"
)


@dataclass(frozen=True)
class Needed:
    """One file that a tokenizer is made from, and how it stands."""

    tokenizer: str
    kind: str  # what it is converted as; "yaml" is not converted
    uri: str
    pinned_sha256: str | None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None  # as recorded at the first use, or found now
    state: str = "not here"  # not here, here, right, changed

    @property
    def line(self) -> str:
        """For a person."""
        where = self.path or shown(self.uri)
        facts = f", {self.size / 1e6:,.1f} MB" if self.size is not None else ""
        whence = "pinned" if self.pinned_sha256 else "recorded at the first use"
        whence = "found now" if self.state == "changed" else whence
        digest = f"\n    sha256 {self.sha256} ({whence})" if self.sha256 else ""
        return f"  {self.tokenizer} {self.kind}: {self.state}{facts}, {where}{digest}"


@click.group("weights", cls=command.CommandGroup, invoke_without_command=True)
@config_options("tokenizers.dvae.weights=FILE")
@click.pass_context
def weights(context: click.Context, sets: tuple[str, ...], configs: tuple[str, ...], as_json: bool) -> None:
    """Say where the weights of the tokenizers come from and which are here.

    \b
    Example: toto-tokenize weights
    """
    if context.invoked_subcommand is None:
        pipelines = load(configs, sets)
        _print([looked_up(item) for name in pipelines.tokenizers for item in needed(pipelines, name)], as_json)


@weights.command()
@click.argument("name")
@config_options("tokenizers.dvae.weights=FILE")
def fetch(name: str, sets: tuple[str, ...], configs: tuple[str, ...], as_json: bool) -> None:
    """Fetch and convert what the tokenizer NAME needs; what is here already is only looked at.

    \b
    Example: toto-tokenize weights fetch dvae
    """
    _print([fetched(item) for item in needed(load(configs, sets), name)], as_json)


@weights.command()
@click.argument("name")
@config_options("tokenizers.dvae.weights=FILE")
def check(name: str, sets: tuple[str, ...], configs: tuple[str, ...], as_json: bool) -> None:
    """Read every byte of what the tokenizer NAME needs, and compare hashes. Fetches nothing.

    \b
    Example: toto-tokenize weights check dvae
    """
    items = [checked(item) for item in needed(load(configs, sets), name)]
    _print(items, as_json)
    for item in items:
        if item.state == "not here":
            raise UserError(f"{name}: not all weights are here; run toto-tokenize weights fetch {name}")
        if item.state == "changed":
            if item.pinned_sha256:
                raise UserError(other_bytes(item.uri, str(item.sha256), item.pinned_sha256))
            raise UserError(f"{item.path} is not what it was; {if_changed(item.uri)}")


def needed(pipelines: Pipelines, name: str) -> list[Needed]:
    """The files of a tokenizer; none for those without networks. UsageError for an unknown name."""
    config = pipelines.tokenizer(name)
    spec = tokenizer_spec(config)
    kinds = {"dvae": {"weights": "dvae-encoder", "decoder": "dvae-decoder"}}.get(config.backend, {})
    kinds |= {"weights": config.backend, "model_config": "yaml"} if config.backend in ("vqgan", "sdvae") else {}
    found = []
    for key, kind in kinds.items():
        uri = file_of(spec)[0] if kind == "sdvae" else spec.get(key)
        if uri is not None:
            found.append(Needed(name, kind, uri, spec.get(f"{key}_sha256")))
    return found


def fetched(item: Needed) -> Needed:
    """After this its weights are here, converted; UserError when they cannot be."""
    if item.kind != "yaml":
        stored(item.kind, item.uri, item.pinned_sha256)
    obtain(item.uri, item.pinned_sha256)
    return looked_up(item)


def looked_up(item: Needed) -> Needed:
    """How it stands by the cache's records; no file is read."""
    record = known(item.uri)
    if record is None:
        pinned = item.pinned_sha256
        state = "here" if pinned and item.kind != "yaml" and is_converted(item.kind, pinned) else "not here"
        return Needed(item.tokenizer, item.kind, item.uri, pinned, sha256=pinned, state=state)
    return Needed(
        item.tokenizer,
        item.kind,
        item.uri,
        item.pinned_sha256,
        str(record.path),
        record.size,
        record.sha256,
        "here",
    )


def checked(item: Needed) -> Needed:
    """How it stands by its bytes."""
    item = looked_up(item)
    if item.path is None:
        return item
    digest = file_sha256(item.path)
    state = "right" if digest == (item.pinned_sha256 or item.sha256) else "changed"
    return Needed(**{**asdict(item), "sha256": digest, "state": state})


def _print(items: list[Needed], as_json: bool) -> None:
    command.say("\n".join(item.line for item in items) or "no weights are needed")
    command.say(PACKAGES)
    if as_json:
        command.print_json([{**asdict(item), "uri": shown(item.uri)} for item in items])
