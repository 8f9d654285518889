"""merge: several datasets as one, where their rows mean the same: one tokenizer, one way of sampling, no source twice.

Splits are joined by name, in the order in which the datasets are given. What may differ and does stands as null in the
settings; `derived.differs` has the values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.rewrite.catalog import Catalog
from toto.shards.rewrite.class_numbers import PAIRS, by_name
from toto.shards.rewrite.copying import RowCopier
from toto.shards.rewrite.derive import DEFAULT, SHARD_BYTES, Options, Result, derive
from toto.shards.rewrite.image_classes import annotations_of
from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.opening import canary_of, derived_settings, open_inputs, places
from toto.shards.rewrite.pieces import cut_pieces, with_units
from toto.shards.rewrite.plan import Draft, Identity
from toto.shards.rewrite.proof import RowProof
from toto.shards.rewrite.tables import LABELS, joined
from toto.shards.split_names import PLAIN, is_plain

MAY_DIFFER = ("layout", "labels", "held_out", "variant", "fold", "seed", "min_frames")  # they choose sources, or crops
FEW = 3


@dataclass(frozen=True)
class Union:
    """How datasets are joined."""

    prefixes: tuple[str, ...] = ()  # before the keys of each dataset; empty for none
    skip_shared: bool = False  # of a source in several datasets, take the first one's rows that has any
    by_name: bool = False  # classes of one name are one class: the first dataset's numbers stay, new names get others
    without: frozenset[str] = frozenset()  # annotations that are left out; `labels`: out of rows and results, too


def merge(
    uris: Sequence[str],
    out: str,
    union: Union = Union(),  # noqa: B008 (frozen)
    name: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    options: Options = DEFAULT,
) -> Result:
    """Joins the last snapshots of datasets; goes on where `out` holds an unfinished merge of them."""
    if len(uris) < 2:
        raise UsageError("merge takes two datasets or more; `toto-shards pack` makes a new one of one")
    opened = open_inputs(out, uris, "merge")
    opened.tell(options.say)
    inputs = opened.inputs
    settings, differs = common_settings(inputs)
    prefixes = list(union.prefixes) or [""] * len(inputs)
    if union.prefixes and union.skip_shared:
        raise UsageError("--prefix keeps sources of one key apart, --skip-shared takes one of them: give one")
    wrong = next((prefix for prefix in union.prefixes if not is_plain(prefix.removesuffix("/"))), None)
    if wrong is not None:
        raise UsageError(f"{wrong!r} is no name to put before keys ({PLAIN}); name the datasets by --names")
    _refuse_unknown(inputs, union.without)
    if union.prefixes and (len(prefixes) != len(inputs) or len(set(prefixes)) < len(prefixes)):
        raise UsageError(
            f"the datasets need {len(inputs)} different prefixes, not {', '.join(prefixes)}; name them by --names"
        )
    if union.by_name and union.without & {*PAIRS, *PAIRS.values()}:
        raise UsageError("--classes-by-name joins classes and their labels, --without leaves them out: give one")
    values = {"differs": differs, "prefixes": prefixes, "skip_shared": union.skip_shared}
    values |= {"classes_by_name": True} if union.by_name else {}
    derived = derived_settings(
        settings, "merge", inputs, **values, without=sorted(union.without), shard_bytes=shard_bytes
    )
    title = name or "+".join(dict.fromkeys(str(taken.dataset.info["name"]) for taken in inputs))
    identity = Identity(title, inputs[0].dataset.tokenizer, derived, places(inputs), canary_of(inputs))
    annotations = annotations_of(inputs, union.without)
    numbers, classes = by_name(inputs, annotations) if union.by_name else ([], {})
    copier = RowCopier(inputs, prefixes, LABELS in union.without, numbers)

    def draw() -> Draft:
        catalog = Catalog(inputs)
        left = [set[str]() for _ in inputs] if union.prefixes else _shared(catalog, union)
        splits = catalog.keep_splits()
        for i, taken in enumerate(inputs):
            if left[i]:
                options.say(f"{taken.uri}: {counted(len(left[i]), 'source')} skipped, which another dataset has")
        tables = joined(inputs, annotations, prefixes, left, union.without, catalog.labelled, numbers, classes)
        units = with_units(cut_pieces(catalog, splits), shard_bytes, identity.of_units())
        return Draft(units, tables, catalog.sources)

    proof = RowProof(inputs, copier, whole=not union.skip_shared) if options.proof else None
    return derive(out, identity, draw, copier, proof, options)


def common_settings(inputs: Sequence[Input]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The settings that all have, null where they may differ and do, and those values; UsageError names the others."""
    first, *others = inputs
    for other in others:
        a, b = first.dataset, other.dataset
        if a.tokenizer["id"] != b.tokenizer["id"]:
            raise UsageError(
                f"{first.uri} has the tokenizer {_tokenizer(a)}, {other.uri} has {_tokenizer(b)}: "
                "ids of one mean nothing to the other"
            )
        if a.info["id_layout"] != b.info["id_layout"]:
            raise UsageError(f"{first.uri} and {other.uri} number their ids differently (id_layout)")
    every = [{**taken.dataset.info["settings"], "derived": None} for taken in inputs]
    keys = sorted({key for settings in every for key in settings} - {"derived"})
    values = {key: [settings.get(key) for settings in every] for key in keys}
    differs = {key: told for key, told in values.items() if any(value != told[0] for value in told)}
    wrong = [key for key in differs if key not in MAY_DIFFER]
    if wrong:
        how = "; ".join(f"{key}: {', '.join(map(repr, differs[key]))}" for key in wrong)
        raise UsageError(
            f"{', '.join(taken.uri for taken in inputs)} differ in how their rows were made ({how}); "
            "train on them as a mixture, or tokenize one anew"
        )
    return {key: None if key in differs else told[0] for key, told in values.items()}, differs


def _tokenizer(dataset: Dataset) -> str:
    spec = dataset.tokenizer
    return f"{spec['name']} ({counted(spec['vocab_size'], 'code')}, id {spec['id']})"


def _refuse_unknown(inputs: Sequence[Input], without: frozenset[str]) -> None:
    known = {LABELS}.union(*(taken.dataset.info["annotations"] for taken in inputs))
    if unknown := sorted(without - known):
        raise UsageError(f"--without {unknown[0]}: no such annotation; these datasets have {', '.join(sorted(known))}")


def _shared(catalog: Catalog, union: Union) -> list[set[str]]:
    """The sources of each dataset that are taken from another: the first in which they gave rows. UserError where they
    were not to be shared."""
    left: list[set[str]] = [set() for _ in catalog.inputs]
    shared = catalog.repeated(range(len(catalog.inputs)))
    if shared and not union.skip_shared:
        few = ", ".join(sorted(shared)[:FEW])
        raise UserError(
            f"{counted(len(shared), 'source')} in several of these datasets (first: {few}); "
            "keep them apart by --prefix, or take the first dataset's by --skip-shared"
        )
    for key, places_of_key in shared.items():
        taken = next((place for place in places_of_key if catalog.is_used(place)), places_of_key[0])
        for place in places_of_key:
            if place != taken:
                left[place[0]].add(key)
                catalog.leave(place)
    return left
