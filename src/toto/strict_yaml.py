"""YAML of strangers: bytes -> plain dicts, lists and scalars, or one line that says where it is wrong.

A bounded subset on purpose: no anchors, aliases or merge keys (bombs, and entries that inherit), no tags
(code), no key twice.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from toto.errors import UsageError

MAX_FILE_BYTES = 256 * 1024  # PyYAML reads about 200 KB/s; ours has a few KB
MAX_SCALAR_CHARS = 2048  # numbers in base 60 (1:59:59…) cost quadratic time, Python prints 4,300 digits
MAX_DEPTH = 16  # PyYAML recurses


def load_file(path: Path) -> Any:
    """The document in a file; UsageError when it is not there, too large, or not the YAML we take."""
    if not path.is_file():
        raise UsageError(f"{path}: no such configuration file; give another with --config")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); give another with --config") from error
    return load_bytes(data, str(path))


def load_bytes(data: bytes, origin: str) -> Any:
    """The one document in `data`; `origin` names it in errors. An empty document is None."""
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{origin}: larger than {MAX_FILE_BYTES // 1024} KiB; this is no configuration file")
    try:
        return yaml.load(data.decode("utf-8-sig"), Loader=_StrictLoader)  # noqa: S506 (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{origin}: {_where(error)}{_problem(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{origin}: not YAML text: {' '.join(str(error).split())}") from error
    except ValueError as error:  # impossible dates, integers of thousands of digits
        raise UsageError(f"{origin}: a value that cannot be read: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses aliases, merge keys, duplicates, deep nesting and very long scalars."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _error("anchors and aliases (&, *) are not taken; write the value out", event)
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR_CHARS:
            raise _error(f"a value of more than {MAX_SCALAR_CHARS} characters", event)
        if self._depth >= MAX_DEPTH:
            raise _error(f"nested more than {MAX_DEPTH} deep", event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            name = None if key.tag == "tag:yaml.org,2002:merge" else self.construct_object(key)
            if not isinstance(name, str):
                raise _error(f"{_text(key)} is no key; keys are text (quote numbers, yes, no, on, off)", key)
            if name in seen:
                raise _error(f"key {name!r} appears twice in one place", key)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _text(node: yaml.Node) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a list or mapping"


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join((error.problem or error.context or "not YAML").split())
    tag = problem.startswith("could not determine a constructor for the tag")
    return "tags (!…) are not taken" if tag else problem
