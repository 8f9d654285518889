"""Whether a JSON value that a stranger wrote has the shape that readers count on.

A shape is a type, a dict of shapes by key (`"views?"` may be missing), `[shape]` for a list, or `{str: shape}` for a
dict of any keys. Keys that the shape does not name are let through: later versions may add some.
"""

from typing import Any

SIZE = object()  # a whole number, not below zero
Shape = Any


def misshapen(value: Any, shape: Shape, name: str = "") -> str | None:
    """The first place, as `files.manifest.path`, where the value is not of the shape; None where it is."""
    if shape is SIZE:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
        return None if fits else name
    if isinstance(shape, list):
        if not isinstance(value, list):
            return name
        return _first(misshapen(item, shape[0], f"{name}[{i}]") for i, item in enumerate(value))
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return name
        if str in shape:
            return _first(misshapen(item, shape[str], f"{name}.{key}") for key, item in value.items())
        return _first(_member(value, key, inner, name) for key, inner in shape.items())
    return None if isinstance(value, shape) and not (isinstance(value, bool) and shape is not bool) else name


def _member(value: dict[str, Any], key: str, shape: Shape, name: str) -> str | None:
    known, place = key.removesuffix("?"), f"{name}.{key.removesuffix('?')}".removeprefix(".")
    if known not in value:
        return None if key != known else place
    return misshapen(value[known], shape, place)


def _first(places: Any) -> str | None:
    return next((place for place in places if place is not None), None)
