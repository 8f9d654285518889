"""Which bytes a tokenizer's files of weights must have: `weights_sha256`, or `#sha256=…` behind a URI.

The second belongs to that URI alone: `${SDVAE:-https://…#sha256=a1d9…}` pins the default, and a file that SDVAE or
--set names instead is not held against it.
"""

import re

from toto.errors import UsageError

MARK = "#sha256="
PINNED = ("weights", "decoder")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Values = dict[str, str | None]


def pinned(values: Values, where: str) -> Values:
    """Keys of an entry, their variables expanded -> the same with every hash under its own key; UsageError if wrong."""
    found = dict(values)
    for key in PINNED:
        uri, mark, digest = (values.get(key) or "").partition(MARK)
        hashes = {}
        if mark:
            found[key] = uri
            hashes[f"{where}.{key}"] = digest
        if (stated := values.get(f"{key}_sha256")) is not None:
            hashes[f"{where}.{key}_sha256"] = stated
        for place, text in hashes.items():
            if not _SHA256.fullmatch(text.lower()):
                raise UsageError(f"{place}: {text[:80]!r} is no sha256; it has 64 hexadecimal digits")
        if len({text.lower() for text in hashes.values()}) > 1:
            raise UsageError(f"{where}.{key}_sha256: another hash stands behind the URI; leave one of them out")
        found[f"{key}_sha256"] = next((text.lower() for text in hashes.values()), None)
    return found
