"""Members of webdataset shards to samples: files that share the name up to the first dot of its last part.

    000000014.mp4, 000000014.txt, 000000014.json  ->  a sample `000000014` with media and texts

The Parquet file beside a shard (video2dataset, img2dataset) says what became of every sample that was tried; those
that failed are counted by its words. Of several media files of a sample a video counts before a picture.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from toto.config import DatasetConfig
from toto.shards.parquet import read_parquet
from toto.tokenize.clip import SourceError
from toto.tokenize.input_file import open_binary
from toto.tokenize.part import parse_part
from toto.tokenize.sources.files import File
from toto.tokenize.sources.names import MEDIA_SUFFIXES, kind_of, suffix_of
from toto.tokenize.sources.tar_index import TAR
from toto.tokenize.sources.tars import tar_by_tar
from toto.tokenize.transient import TransientError

TEXT_SUFFIXES = (".txt", ".json", ".cls")
STATUS_SUFFIX = ".parquet"
SUCCESS = "success"
_COLUMNS = ("key", "status", "error_message")
MAX_STATUS_BYTES = 256 * 2**20
MOST_REASONS = 20  # of different messages; a URL in each would make as many as there are samples

Status = tuple[str, str]  # status, error message
Text = tuple[str, int, int]  # its suffix (.txt, .json, .cls), where it begins in the shard, its bytes; there are many


@dataclass(frozen=True, slots=True)
class Sample:
    """One video or picture of a shard and the texts beside it."""

    key: str  # <shard's key without .tar>/<sample's>
    media: File  # a part of the shard
    texts: tuple[Text, ...]
    shard: File

    def text(self, suffix: str) -> Text | None:
        """Its text with this suffix."""
        return next((text for text in self.texts if text[0] == suffix), None)


def read_samples(
    config: DatasetConfig, shards: Sequence[File], statuses: Sequence[File], ignored: Counter[str]
) -> list[Sample]:
    """The samples of the shards in their order; what gives none is counted. UserError for a shard that cannot be read.

    `statuses`: the Parquet files that lie beside shards.
    """
    beside = {file.key[: -len(STATUS_SUFFIX)]: file for file in statuses}
    failed: Counter[Status] = Counter()
    samples: dict[str, Sample] = {}
    for shard, found in tar_by_tar(config, shards, None, ignored):
        folder = shard.key[: -len(TAR)]
        failures = _failures(beside.get(folder), ignored)
        failed.update(failures.values())
        for key, files in _grouped(folder, found, ignored).items():
            sample = None if key in failures else _sample(f"{folder}/{key}", files, shard, ignored)
            if sample and samples.setdefault(sample.key, sample) is not sample:
                ignored["(second sample of one key)"] += 1
    ignored.update(_by_reason(failed))
    return list(samples.values())


def _grouped(folder: str, members: Iterator[File], ignored: Counter[str]) -> dict[str, dict[str, File]]:
    """Sample -> what follows the first dot of its files' names -> file; webdataset's rule."""
    samples: dict[str, dict[str, File]] = defaultdict(dict)
    for file in members:
        above, slash, name = file.key[len(folder) + 1 :].rpartition("/")
        stem, dot, extension = name.partition(".")
        if stem and dot:
            files, suffix = samples[above + slash + stem], f".{extension.lower()}"
            if suffix in files:  # a.MP4 behind a.mp4: the last counts, as of equal names
                ignored["(second file of a sample with one suffix)"] += 1
            files[suffix] = file
        else:
            ignored["(no suffix)"] += 1
    return samples


def _sample(key: str, files: Mapping[str, File], shard: File, ignored: Counter[str]) -> Sample | None:
    texts = tuple(_text(suffix, files[suffix]) for suffix in TEXT_SUFFIXES if suffix in files)
    rest = [(kind_of(file.key) == "image", ext) for ext, file in files.items() if ext not in TEXT_SUFFIXES]
    media = sorted(item for item in rest if suffix_of(files[item[1]].key) in MEDIA_SUFFIXES)
    ignored.update(suffix_of(files[ext].key) for is_image, ext in rest if (is_image, ext) not in media)
    if not media:
        ignored["(sample without a video or picture)"] += 1
        return None
    if len(media) > 1:
        ignored["(further media of a sample)"] += len(media) - 1
    return Sample(key, files[media[0][1]], texts, shard)


def _text(suffix: str, file: File) -> Text:
    part = parse_part(file.uri)
    assert part is not None  # members of tars are
    return suffix, part.offset, file.size


def _failures(file: File | None, ignored: Counter[str]) -> dict[str, Status]:
    """Samples of a shard that the downloader gave up, with its words; none where there is no such table."""
    if file is None:
        return {}
    try:
        table = _status_table(file)
    except (pa.ArrowException, OSError, SourceError, TransientError):
        ignored["(table beside a shard that cannot be read)"] += 1
        return {}
    if not {"key", "status"} <= {*table.column_names}:
        return {}
    columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in _COLUMNS]
    rows = zip(*columns, strict=True)
    return {str(key): (str(status), _brief(message)) for key, status, message in rows if status != SUCCESS}


def _status_table(file: File) -> pa.Table:
    if file.size > MAX_STATUS_BYTES:
        raise pa.ArrowInvalid("larger than any such table")
    with open_binary(file.uri) as source:
        return read_parquet(source.read(), _COLUMNS)


def _brief(message: object) -> str:
    return " ".join(str(message).split())[:60] if message else ""


def _by_reason(failed: Counter[Status]) -> Counter[str]:
    """Counts by "(status: message)"; rare messages are left off."""
    common = sorted(failed, key=lambda status: (-failed[status], status))[:MOST_REASONS]
    counts: Counter[str] = Counter()
    for (status, message), count in failed.items():
        said = f": {message}" if message and (status, message) in common else ""
        counts[f"({status}{said})"] += count
    return counts
