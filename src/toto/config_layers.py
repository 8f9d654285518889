"""Configuration files and `--set` overrides, each checked where it was written, then laid over one another.

A layer is section -> entry -> key -> value, as one file or one `--set` gives it. Errors name the layer, the
key's full path, and what would be right. Later layers win key by key; of keys that exclude each other, the
last one set stays.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from toto import strict_yaml
from toto.config_rules import NAME, Rule
from toto.errors import UsageError

Layer = dict[str, dict[str, dict[str, Any]]]
Sections = Mapping[str, Mapping[str, Rule] | Rule]  # one Rule: the entry's keys are free, their values alike
EXCLUSIVE = ("stride", "fps", "uniform")  # three ways to choose frames; never silently one for the other


def from_bytes(data: bytes, origin: str, sections: Sections) -> Layer:
    """The checked layer of a file's bytes."""
    return check(strict_yaml.load_bytes(data, origin), origin, sections)


def from_file(path: str, sections: Sections) -> Layer:
    """The checked layer of one file."""
    return check(strict_yaml.load_file(Path(path).expanduser()), path, sections)


def from_override(text: str, sections: Sections) -> Layer:
    """The checked layer of one `--set section.entry.key=value`."""
    origin = f"--set {text}"
    path, equals, raw = text.partition("=")
    parts = path.strip().split(".")
    if not equals or len(parts) != 3:
        raise UsageError(f"{origin}: write section.entry.key=value, such as datasets.demo.stride=8")
    section, entry, key = parts
    rule = _rule_of(sections.get(section), key)
    value = raw if rule is not None and rule.is_text and raw not in ("", "null") else _scalar(raw, origin)
    return check({section: {entry: {key: value}}}, origin, sections)


def check(document: Any, origin: str, sections: Sections) -> Layer:
    """The layer with every value converted; UsageError for unknown keys and wrong values."""
    layer: Layer = {}
    for section, entries in _mapping(document, origin, "the file").items():
        if section not in sections:
            raise UsageError(f"{origin}: {unknown('section', section, sections)}")
        layer[section] = {}
        for entry, values in _mapping(entries, origin, section).items():
            path = f"{section}.{entry}"
            if not NAME.fullmatch(entry):
                raise UsageError(f"{origin}: {path}: names are letters, digits, - and _ (at most 64)")
            given = _mapping(values, origin, path)
            layer[section][entry] = _check_entry(given, origin, path, sections[section])
    return layer


def merge(layers: Iterable[Layer]) -> Layer:
    """Later layers over earlier ones, key by key."""
    merged: Layer = {}
    for layer in layers:
        for section, entries in layer.items():
            for name, values in entries.items():
                entry = merged.setdefault(section, {}).setdefault(name, {})
                if any(values.get(key) is not None for key in EXCLUSIVE):
                    for key in EXCLUSIVE:
                        entry.pop(key, None)
                entry.update(values)
    return merged


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """`unknown dataset 'k40'; did you mean 'k400'?` and, on a second line, the known ones."""
    known = list(known)
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name[:60]!r}{hint}\nknown: {', '.join(known) or 'none'}"


def _check_entry(values: dict[str, Any], origin: str, path: str, rules: Mapping[str, Rule] | Rule) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in values.items():
        rule = _rule_of(rules, key)
        if rule is None:
            assert not isinstance(rules, Rule)
            raise UsageError(f"{origin}: {path}.{key}: {unknown('key', key, rules)}")
        if value is None and rule.optional:
            checked[key] = None
        elif rule.accepts(value):
            checked[key] = rule.convert(value)
        else:
            raise UsageError(f"{origin}: {path}.{key}: {_shown(value)} is not {rule.allowed}")
    chosen = [key for key in EXCLUSIVE if checked.get(key) is not None]
    if len(chosen) > 1:
        raise UsageError(f"{origin}: {path}: {' and '.join(chosen)} exclude each other; keep one")
    return checked


def _rule_of(rules: Mapping[str, Rule] | Rule | None, key: str) -> Rule | None:
    return rules if isinstance(rules, Rule) or rules is None else rules.get(key)


def _mapping(value: Any, origin: str, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{origin}: {path}: {_shown(value)} is not a mapping of names to values")
    return value


def _scalar(raw: str, origin: str) -> Any:
    return strict_yaml.load_bytes(raw.encode("utf-8", "surrogateescape"), origin)


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    line = yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n...")
    return line if len(line) <= 60 else f"{line[:57]}..."
