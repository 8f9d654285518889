"""Names that people give to splits, and to datasets before the keys of their sources: parts of paths."""

import re

PLAIN = "letters, digits, '.', '_' and '-', and no '..'"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}")


def is_plain(name: str) -> bool:
    """Whether it can stand in a path without leading anywhere."""
    return _PLAIN.fullmatch(name) is not None and name != "." and ".." not in name
