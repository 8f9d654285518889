"""Words of messages: text from strangers (file names, labels, damaged files) made harmless; things that are counted."""

import unicodedata

HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction-changing, surrogate, line-breaking characters


def plain(text: str) -> str:
    """On one line: every harmful character becomes U+FFFD."""
    return "".join("\ufffd" if unicodedata.category(c) in HARMFUL else c for c in text)


def plain_lines(text: str) -> str:
    """The same, line breaks kept."""
    return "\n".join(plain(line) for line in text.split("\n"))


def counted(count: int, what: str) -> str:
    """`1 shard`, `1,200 shards`, `0 record batches`: how many there are, in words."""
    return f"{count:,} {what}" + ("" if count == 1 else "es" if what.endswith(("ch", "s")) else "s")


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, `22nd`."""
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    return f"{number:,}" + {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
