"""split: sources into splits by a keyed hash of their group, so that no group stands in two of them.

    key ─▶ group (the key itself, its folder, what a pattern finds in it) ─▶ hash(seed, group) ─▶ split

The hash knows nothing of the dataset: the same group goes to the same split in every dataset and when sources are
added. A pattern such as `([\\w-]{11})` keeps all pieces of one YouTube video together.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from typing import Any

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.protocols import TRAIN, beside_grid
from toto.shards.rewrite.catalog import STAYS, Catalog
from toto.shards.rewrite.copying import RowCopier
from toto.shards.rewrite.derive import DEFAULT, SHARD_BYTES, Options, Result, derive
from toto.shards.rewrite.inputs import Input
from toto.shards.rewrite.opening import canary_of, derived_settings, open_inputs, places
from toto.shards.rewrite.pieces import cut_pieces, with_units
from toto.shards.rewrite.plan import Draft, Identity
from toto.shards.rewrite.proof import RowProof
from toto.shards.rewrite.tables import tables_of, with_splits
from toto.shards.split_names import is_plain
from toto.shards.streaming.keyed import key

SOURCE, FOLDER = "source", "folder"
WHAT = ("source", "frame", "id")  # whose shares are told


@dataclass(frozen=True)
class Shares:
    """Splits and their shares, in order; the shares add up to 1."""

    names: tuple[str, ...]
    shares: tuple[Fraction, ...]

    @property
    def spelled(self) -> list[list[Any]]:
        """[name, share], …: as settings have it."""
        return [[name, float(share)] for name, share in zip(self.names, self.shares, strict=True)]

    def drawn(self, number: int) -> str:
        """The split of a 64-bit number."""
        place = Fraction(number, 1 << 64)
        return next(name for name, end in zip(self.names, accumulate(self.shares), strict=True) if place < end)


@dataclass(frozen=True)
class Division:
    """How sources are divided."""

    into: Shares
    seed: int = 0
    group: str = SOURCE  # SOURCE, FOLDER, or a pattern
    of: str | None = None  # the split that is divided; the others stay. None: there is but one
    pooled: bool = False  # all splits are thrown together first
    allow_empty: bool = False


def parse_shares(text: str) -> Shares:
    """`train=0.9,val=0.1` -> shares; UsageError when they are not that, or do not add up to 1."""
    names, shares = [], []
    for part in text.split(","):
        name, _, share = part.partition("=")
        if not is_plain(name.strip()) or not re.fullmatch(r"\d*\.?\d+", share.strip()):
            raise UsageError(f"--into {text}: {part!r} is not NAME=SHARE, such as val=0.1")
        names.append(name.strip())
        shares.append(Fraction(share.strip()))
    if len(set(names)) < len(names) or sum(shares) != 1:
        raise UsageError(f"--into {text}: each split once, with shares that add up to 1 (here {float(sum(shares)):g})")
    return Shares(tuple(names), tuple(shares))


def split(uri: str, out: str, division: Division, shard_bytes: int = SHARD_BYTES, options: Options = DEFAULT) -> Result:
    """Divides the last snapshot of a dataset; goes on where `out` holds an unfinished split of it."""
    opened = open_inputs(out, [uri], "split")
    opened.tell(options.say)
    (taken,) = opened.inputs
    info = taken.dataset.info
    _check(taken, division)
    values = {
        "into": [[name, float(share)] for name, share in zip(division.into.names, division.into.shares, strict=True)],
        **{"seed": division.seed, "group": division.group, "of": division.of, "shard_bytes": shard_bytes},
    }
    settings = derived_settings(info["settings"], "split", [taken], **values)
    identity = Identity(info["name"], taken.dataset.tokenizer, settings, places([taken]), canary_of([taken]))
    copier, goes_to = RowCopier([taken]), _assignment(division)

    def draw() -> Draft:
        catalog = Catalog([taken])
        splits = _divide(catalog, division, goes_to)
        _report(catalog, splits, division, options.say)
        _tell_of_leaks(catalog, division, options.say)
        units = with_units(cut_pieces(catalog, splits), shard_bytes, identity.of_units())
        return Draft(units, with_splits(tables_of(taken), goes_to), catalog.sources)

    proof = RowProof([taken], copier, whole=True) if options.proof else None
    return derive(out, identity, draw, copier, proof, options)


def group_of(rule: str) -> Callable[[str], str]:
    """Source key -> its group: of a pattern its first parenthesis, or all of it. UserError where it finds nothing."""
    if rule == SOURCE:
        return lambda source: source
    if rule == FOLDER:
        return lambda source: source.rpartition("/")[0]
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UsageError(f"--group {rule}: not a regular expression ({error}); or give folder, or source") from None

    def found(source: str) -> str:
        match = pattern.search(source)
        if match is None or match[pattern.groups and 1] is None:
            raise UserError(f"--group {rule} finds nothing in source {source!r}; every source needs a group")
        return match[pattern.groups and 1]

    return found


def _assignment(division: Division) -> Callable[[str, str], str]:
    """(source key, split that it is in) -> split that it goes to."""
    group = group_of(division.group)

    @lru_cache(maxsize=1 << 16)
    def drawn(name: str) -> str:
        return division.into.drawn(key(division.seed, "split", name))

    def goes_to(source: str, before: str) -> str:
        return before if division.of not in (None, before) else drawn(group(source))

    return goes_to


def _check(taken: Input, division: Division) -> None:
    """Refuses a division that would mix what somebody keeps apart."""
    splits, into, where = taken.dataset.splits, division.into.names, taken.uri
    if division.of is None and not division.pooled and len(splits) > 1:
        raise UsageError(
            f"{where} has the splits {', '.join(splits)}: say which one to divide by --from NAME (the others stay), "
            "or throw them together by --pool"
        )
    if division.of is not None and division.of not in splits:
        raise UsageError(f"{where} has no split {division.of!r}; it has: {', '.join(splits)}")
    kept = [name for name in splits if division.of not in (None, name)]
    if both := sorted(set(kept) & set(into)):
        raise UsageError(f"split {both[0]} stays as it is, and --into would add to it; choose another name")
    moved = [name for name in splits if name not in kept]
    if beside_grid(taken.dataset.info["settings"], "") and len({name == TRAIN for name in (*moved, *into)}) > 1:
        raise UsageError(
            f"{where}: rows of every split but train hold frames beside the stride, for its protocols; "
            "they can be moved neither into train nor out of it"
        )


def _divide(catalog: Catalog, division: Division, goes_to: Callable[[str, str], str]) -> list[str]:
    """Sets the ways of all sources; the names of the splits, as ways count."""
    splits = sorted({*division.into.names, *(lines.split for lines in catalog.lines())})
    number = {name: way for way, name in enumerate(splits)}
    for unit, lines in enumerate(catalog.units[0]):
        for line, source in enumerate(catalog.keys(0, unit)):
            if lines.ways[line] != STAYS:
                lines.ways[line] = number[goes_to(source, lines.split)]
    return splits


def _report(catalog: Catalog, splits: list[str], division: Division, say: Callable[[str], None]) -> None:
    """Says what each split gets; UserError where one would be empty."""
    counts = dict.fromkeys(splits, (0, 0, 0))
    for lines in catalog.lines():
        for way, name in enumerate(splits):
            here = lines.ways == way
            sources, frames, tokens = counts[name]
            sources, frames = sources + int((here & lines.used).sum()), frames + int(lines.frames[here].sum())
            counts[name] = sources, frames, tokens + int(lines.tokens[here].sum())
    divided = [counts[name] for name in division.into.names]
    totals = [max(1, sum(column)) for column in zip(*divided, strict=True)]
    for name, got in counts.items():
        if name in division.into.names:
            told = (f"{counted(n, what)} ({n / total:.2%})" for n, total, what in zip(got, totals, WHAT, strict=True))
            say(f"{name}: {', '.join(told)}")
        elif any(got):
            say(f"{name} stays: {', '.join(map(counted, got, WHAT))}")
    empty = [name for name in division.into.names if not counts[name][0]]
    if empty and not division.allow_empty:
        raise UserError(f"split {empty[0]} would have no source; other shares, another --seed, or --allow-empty")


def _tell_of_leaks(catalog: Catalog, division: Division, say: Callable[[str], None]) -> None:
    """Says where a group of the split that is divided stands in one that stays: nobody moves those."""
    if division.of is None:
        return
    group = group_of(division.group)
    groups: dict[bool, set[int]] = {True: set(), False: set()}
    for unit, lines in enumerate(catalog.units[0]):
        groups[lines.split == division.of].update(key(0, group(source)) for source in catalog.keys(0, unit))
    if both := len(groups[True] & groups[False]):
        say(f"warning: {counted(both, 'group')} of {division.of} also in another split, which stays as it is")
