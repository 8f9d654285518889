"""Tokenizers by name: how a stage that may not import `toto.tokenize` gets pixels back from ids.

Built-in ones stand in `BUILT_IN`; others come from the entry-point group `toto.tokenizers`: a callable
`make(spec, device) -> Tokenizer`, where spec is the `tokenizer` object of a dataset.json (at first what pipelines.yaml
says: name, and `options` as they stand there).
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from toto.config_layers import unknown
from toto.errors import UsageError, UserError
from toto.uris import shown

BUILT_IN = {
    "dct": "toto.tokenize.tokenizers.dct:make",
    "dvae": "toto.tokenize.tokenizers.dvae:make",
    "none": "toto.tokenize.tokenizers.none:make",
    "sdvae": "toto.tokenize.tokenizers.sdvae:make",
    "vqgan": "toto.tokenize.tokenizers.vqgan:make",
}


class Tokenizer(Protocol):
    """A picture to a grid of codes and back; deterministic, each picture independent of its neighbours."""

    vocab_size: int  # codes are 0 … vocab_size - 1; 0 means that there are no codes
    patch: int  # pixels of a side that become one code
    batch: int | None  # pictures of one call, filled up with zeros; None: codes never depend on their number

    @property
    def spec(self) -> dict[str, Any]:
        """What identifies it, as stored in dataset.json: name, every parameter, hashes, `id`."""
        ...

    # Two that a tokenizer with another precision than its exact one has besides:
    #   precision: str, such as "bf16";  encode_exact(pictures), what encode would give in its exact precision.

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 RGB [n, 3, H, W] -> int32 codes [n, H // patch, W // patch]."""
        ...

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int codes [n, h, w] -> uint8 RGB [n, 3, h * patch, w * patch]."""
        ...


def load(spec: dict[str, Any], device: str = "cpu") -> Tokenizer:
    """The tokenizer that a spec names; UsageError for an unknown name or when its hash differs, UserError for what a
    plug-in raises."""
    name = spec["name"]
    if name in BUILT_IN:
        module, _, function = BUILT_IN[name].partition(":")
        return getattr(import_module(module), function)(spec, device)
    others = {point.name: point for point in entry_points(group="toto.tokenizers")}
    if name in others:
        try:
            return others[name].load()(spec, device)
        except UserError:
            raise
        except Exception as error:
            raise failed(name, "make", error) from error
    told = unknown("tokenizer", str(name), sorted({*BUILT_IN, *others}))
    raise UsageError(f"{told}; codes of another one become pictures by a package with the entry point toto.tokenizers")


def failed(name: str, function: str, error: Exception) -> UserError:
    """What is said of a plug-in's function that raised something: its name, the kind and the words."""
    words = shown(" ".join(str(error).split()))[:300]
    kind = type(error).__name__
    return UserError(
        f"tokenizer {name}: its {function} raised {kind}" + (f": {words}" if words else "") + "\n"
        "its package is at fault, or what it was given; --debug adds the traceback"
    )
