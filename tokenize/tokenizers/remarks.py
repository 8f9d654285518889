"""What a network has to say of how it runs here, such as uncompiled: a line on stderr, which a driver may ask for.

Ray keeps what its workers print; so they hand their lines on, and the driver shows each once (monitor.py).
"""

import sys

_SAID: list[str] = []


def remark(line: str) -> None:
    """Says a line, now."""
    _SAID.append(f"tokenizer: {line}")
    print(_SAID[-1], file=sys.stderr, flush=True)


def remarks() -> tuple[str, ...]:
    """What this process has said so far."""
    return tuple(_SAID)
