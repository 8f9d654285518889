"""What a key of pipelines.yaml may hold: declared beside each dataclass field, checked when the file is read.

`stride: int | None = whole(None, 1, 65_535)` is a field with default None and a `Rule` in its metadata.
"""

import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # of an entry: it becomes a folder's name


@dataclass(frozen=True)
class Rule:
    """Which values a key takes."""

    allowed: str  # in words, for the error message
    accepts: Callable[[Any], bool]
    optional: bool = False  # null means "not set"
    required: bool = False
    is_text: bool = False  # `--set` takes the text as it stands: root=2024, root=~
    convert: Callable[[Any], Any] = lambda value: value


def rules(cls: type) -> dict[str, Rule]:
    """The rules of a dataclass by key, in the order of its fields."""
    return {f.name: f.metadata["rule"] for f in fields(cls) if "rule" in f.metadata}


def whole(default: Any, low: int, high: int, multiple: int = 1) -> Any:
    """A whole number of [low, high]; `multiple` of something, where it must be."""
    step = f", a multiple of {multiple}" if multiple > 1 else ""
    return _field(default, f"a whole number from {low} to {high}{step}", _is_whole(low, high, multiple))


def whole_or(default: int | str, word: str, low: int, high: int) -> Any:
    """A whole number of [low, high], or one word."""
    is_whole = _is_whole(low, high, 1)
    return _field(default, f"a whole number from {low} to {high}, or {word}", lambda v: v == word or is_whole(v))


def number(default: float | None, low: float, high: float) -> Any:
    """A real number of [low, high], stored as float."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    return _field(default, f"a number from {low:g} to {high:g}", accepts, convert=float)


def choice(default: Any, *known: str) -> Any:
    """One of a few words. YAML reads on and off as true and false; they are taken back where they are among them."""
    words = {True: "on", False: "off"}

    def accepts(value: Any) -> bool:
        return (words[value] if isinstance(value, bool) else value) in known

    def convert(value: Any) -> Any:
        return words[value] if isinstance(value, bool) else value

    return _field(default, f"one of: {', '.join(known)}", accepts, convert=convert)


def yes_no(default: bool) -> Any:
    """True or false."""
    return _field(default, "true or false", lambda v: isinstance(v, bool))


def text(default: Any = MISSING) -> Any:
    """Text on one line; not empty unless that is the default."""

    def accepts(value: Any) -> bool:
        return isinstance(value, str) and value.isprintable() and (value != "" or default == "")

    return _field(default, "text on one line, not empty", accepts, is_text=True)


def names() -> Any:
    """One name or a list of them, stored as a tuple; none by default."""

    def accepts(value: Any) -> bool:
        items = [value] if isinstance(value, str) else value
        return isinstance(items, list) and all(isinstance(i, str) and NAME.fullmatch(i) for i in items)

    return _field((), "a name or a list of names", accepts, convert=lambda v: (v,) if isinstance(v, str) else tuple(v))


def name_of(what: str) -> Any:
    """The name of something that is looked up later."""
    return _field(MISSING, f"the name of {what}", lambda v: isinstance(v, str) and bool(NAME.fullmatch(v)))


def mapping() -> Any:
    """Keys with one value each, such as {size: 3, mode: fast}; none by default."""

    def accepts(value: Any) -> bool:
        plain = (str, int, float, bool)
        return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, plain) for k, v in value.items())

    rule = Rule("keys with a plain value each", accepts)
    return field(default_factory=dict, metadata={"rule": rule})


def _is_whole(low: int, high: int, multiple: int) -> Callable[[Any], bool]:
    def accepts(value: Any) -> bool:
        is_int = isinstance(value, int) and not isinstance(value, bool)
        return is_int and low <= value <= high and value % multiple == 0

    return accepts


def _field(default: Any, allowed: str, accepts: Callable[[Any], bool], **more: Any) -> Any:
    rule = Rule(allowed, accepts, optional=default is None, required=default is MISSING, **more)
    return field(default=default, metadata={"rule": rule})
