"""What an export that stands at a place owns there: only that is ever replaced.

meta.json        a finished one: its `contents` are its files
unfinished.json  one that was begun: files with names that such an export gives, and those that it was to replace
"""

import json
from collections.abc import Callable, Collection
from typing import Any

from toto.errors import UserError
from toto.shards.export.outgoing import META
from toto.shards.export.targets import TARGETS, is_name_of, is_plain

UNFINISHED = "unfinished.json"
FEW = 3


def begun(target: str, splits: Collection[str], replaced: Collection[str]) -> bytes:
    """The content of unfinished.json."""
    value = {"toto_export": None, "to": target, "pieces": dict.fromkeys(splits), "replaced": sorted(replaced)}
    return json.dumps(value).encode()


def refuse_taken(place: object, there: Collection[str], read: Callable[[str], bytes], force: bool) -> None:
    """UserError where a place holds other files than an export's own, or an export that is not to be replaced."""
    told = [value for name in (META, UNFINISHED) if name in there and (value := _told(name, read)) is not None]
    strangers = sorted(name for name in there if not any(_owns(value, name) for value in told))
    if strangers:
        few = ", ".join(strangers[:FEW])
        what = "files that are not of the export" if told else "something that is not an export"
        raise UserError(f"{place} holds {what} ({few}); choose another --out")
    if META in there and not force:
        raise UserError(f"{place} holds an export already; choose another --out, or replace it with --force")


def _told(name: str, read: Callable[[str], bytes]) -> dict[str, Any] | None:
    """What an export wrote there; None where it is none of ours."""
    try:
        value = json.loads(read(name))
        ours = "toto_export" in value and value["to"] in TARGETS and all(map(is_plain, value["pieces"]))
        ours &= isinstance(value.get("contents", {}), dict)
        value["replaced"] = set(value.get("replaced", ()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return value if ours else None


def _owns(value: dict[str, Any], name: str) -> bool:
    if name in (META, UNFINISHED) or name in value["replaced"]:
        return True
    return name in value["contents"] if "contents" in value else is_name_of(value["to"], value["pieces"], name)
