"""The type of options that take a number of bytes: digits and a unit, as people write them."""

import re
from typing import Any

import click

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
MOST_BYTES = 1 << 40


class Bytes(click.ParamType):
    """A size such as 256MiB, 1.5GB or 4096."""

    name = "bytes"

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes, 1 to the most that is taken."""
        found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]*)", str(value).strip())
        size = 0 if found is None else int(float(found[1]) * UNITS.get(found[2].upper(), 0))
        if not 1 <= size <= self._most:
            self.fail(
                f"{str(value)[:40]!r} is no size; give one such as 256MiB, {self._most >> 30}GiB at most", param, ctx
            )
        return size
