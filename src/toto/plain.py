"""Text from strangers (file names, labels, damaged files), made harmless for terminals and pages."""

import unicodedata

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction-changing, surrogate, line-breaking characters


def plain(text: str) -> str:
    """On one line: every harmful character becomes U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) in HARMFUL else c for c in text)


def plain_lines(text: str) -> str:
    """The same, line breaks kept."""
    return "\n".join(plain(line) for line in text.split("\n"))
