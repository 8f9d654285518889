"""Sources that an official list names: each is found among the files by its name, wherever it lies under the root.

What is listed and not there stays in the listing as missing, so that it ends in the quarantine instead of vanishing.
A file in no list is counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.lazy import cached_property
from toto.plain import counted
from toto.tokenize.sources.base import MISSING_SIZE, Source
from toto.tokenize.sources.files import File, root_error
from toto.tokenize.sources.names import escape, is_passed_over, shown

UNLISTED = "(in no official list)"
COPY = "(another copy of a listed file)"


class Shelf:
    """Files by name. Of several with one name the one in the fewest folders counts, then the first by key."""

    def __init__(self, files: Sequence[File], name_of: Callable[[File], str]) -> None:
        self._files = files
        self._first: dict[str, File] = {}
        self._copies: Counter[str] = Counter()  # of names that more than one file has
        self._taken: set[str] = set()
        for file in sorted(files, key=lambda file: (file.key.count("/"), file.key)):
            name = name_of(file)
            if self._first.setdefault(name, file) is not file:
                self._copies[name] += 1

    @cached_property
    def _by_key(self) -> dict[str, File]:
        return {file.key: file for file in self._files}

    def take(self, name: str, *keys: str | None) -> File | None:
        """The file at the first of `keys` that is there, else one with this name; None when there is none."""
        self._taken.add(name)
        found = (self._by_key[key] for key in keys if key is not None and key in self._by_key)
        return next(found, self._first.get(name))

    def names(self) -> list[str]:
        """Every name, sorted."""
        return sorted(self._first)

    def count_left(self, ignored: Counter[str]) -> None:
        """Counts files of names that nobody took, and second copies of those that somebody did."""
        copies = sum(count for name, count in self._copies.items() if name in self._taken)
        left = len(self._files) - copies - sum(name in self._first for name in self._taken)
        ignored.update({what: count for what, count in ((COPY, copies), (UNLISTED, left)) if count})


def stem(file: File) -> str:
    """A file's name without its suffix."""
    return file.parts[-1].rpartition(".")[0]


def is_name(text: str) -> bool:
    """Whether a word of a list can be the name of a file: no folders, not hidden."""
    return bool(text) and not is_passed_over(text) and not set("/\\\0") & set(text)


def listed_source(
    config: DatasetConfig, key: str, file: File | None, split: str, label: int | None, suffix: str
) -> Source:
    """The video of a line of a list; where there is no file, the source is missing at the root's `key` + `suffix`.

    Keys are compared with those of files, so a name of a list is escaped when it is read.
    """
    if file is None:
        return Source(key, f"{config.root.rstrip('/')}/{key}{suffix}", "video", split, label, MISSING_SIZE)
    return Source(key, file.uri, "video", split, label, file.size, file.mtime_us, file.etag)


def check_found(config: DatasetConfig, sources: Sequence[Source], what: str = "video") -> None:
    """UserError when every source is missing, or when there is none at all."""
    if not sources:
        where = f"datasets.{config.name}"
        raise UserError(f"{where}: the lists name no {what} that is asked for\nput complete lists into place")
    if all(source.size == MISSING_SIZE for source in sources):
        raise root_error(config, f"of {counted(len(sources), what)} in the lists, none is here")


def absent(config: DatasetConfig, what: str, names: Sequence[str], effect: str, other: str | None = None) -> str:
    """A line on official lists that are not there: which, where they were looked for, what follows, where to get them.

    `what`: what they list, as in "split val"; `other`: a list that is there, where all must lie in one folder.
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    place = escape(shown(other.rpartition("/")[0] if other else config.annotations or config.root.rstrip("/")))
    inside = " and its annotations/" if other is None and config.annotations is None else ""
    source = f"; get it from {config.homepage}" if config.homepage else ""
    listed = f"{', '.join(names[:3])}{more}, looked for in {place}{inside}"
    return f"datasets.{config.name}: no list for {what} ({listed}): {effect}{source}"


def no_list(config: DatasetConfig, names: Sequence[str], taken: int) -> str:
    """Of a dataset whose only list is not there: every video is taken."""
    return absent(config, "the videos", names, f"every video here is taken ({taken:,})")


def these_splits(splits: Sequence[str]) -> str:
    """Such as "split val", "splits train, val"."""
    return f"{'split' if len(splits) == 1 else 'splits'} {', '.join(splits)}"


def lists_error(config: DatasetConfig, problem: str) -> UserError:
    """Of official lists that are not there: `annotations` is at fault where it is set, else the root holds none."""
    if config.annotations is None:
        where, place = f"datasets.{config.name}.root", config.root
    else:
        where, place = f"datasets.{config.name}.annotations", config.annotations
    source = f"get them from {config.homepage}, then " if config.homepage else ""
    return UserError(
        f"{where}: {escape(shown(place))}: {problem}\n{source}set datasets.{config.name}.annotations to their folder"
    )


def no_lists(config: DatasetConfig, names: str) -> UserError:
    """Says which official lists are not there, where they were looked for, and where people get them."""
    return lists_error(config, f"no official lists ({names})")
