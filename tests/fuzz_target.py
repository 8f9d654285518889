"""The process that reads a changed dataset for the fuzzer: one line of JSON in (folder, how), one out (what happened).

    python tests/fuzz_target.py PRISTINE    then lines like {"root": "/tmp/x", "fixed": true}

Its memory is limited, so what eats too much of it fails here, and what kills it leaves the fuzzer alive.
"""

import json
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import xxhash

from toto import Dataset
from toto.errors import UserError
from toto.shards.batch import Batch
from toto.shards.store import open_store
from toto.shards.untrusted.row_rules import Rules
from toto.shards.verify import verify

ADDRESS_SPACE = 6 << 30
MOST_MEMORY = 1 << 30  # that one reading may add to what the process holds


class _Agrees:
    """A hash that an attacker computed over what he wrote: equal to whatever is stored."""

    def encode(self) -> "_Agrees":
        return self

    def __ne__(self, other: object) -> bool:
        return False


def main() -> None:
    """Reads until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    expected = dict(_parts(Path(sys.argv[1])))
    for line in sys.stdin:
        asked = json.loads(line)
        before = _reset_peak()
        try:
            said = _judge(Path(asked["root"]), asked["fixed"], asked["listed"], expected)
        except MemoryError:
            said = "MemoryError"
        except Exception as error:  # anything but UserError is what the fuzzer looks for
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "/shards/" in f.filename] or list(frames)
            said = f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].name}: {str(error)[:200]}"
        grown = _peak() - before
        if not said and grown > MOST_MEMORY:
            said = f"took {grown >> 20} MiB"
        print(json.dumps({"said": said, "grown": grown}), flush=True)


def _judge(root: Path, fixed: bool, listed: bool, expected: dict[str, str]) -> str:
    """Empty when every reading gave what was written or a UserError."""
    agreeing = patch("toto.shards.reader.batch_hash", lambda columns, batch, also: _Agrees())
    unpaused = patch("toto.shards.sealed_files.PAUSES_S", ())  # nobody seals this dataset meanwhile
    with agreeing if fixed else nullcontext(), unpaused, patch("time.sleep", _sleep):
        read = dict(_parts(root))
        if fixed:
            return next((said for said in map(_fault, _batches(root)) if said), "") or _verified(root)
    wrong = [name for name, digest in read.items() if digest not in ("UserError", expected.get(name))]
    if wrong:
        return f"read something else than was written: {wrong[0]}"
    report = verify(open_store(root), deep=True)
    return "verify did not see it" if listed and report.ok else ""


def _sleep(seconds: float) -> None:
    raise RuntimeError(f"waits for a file of this machine, {seconds} s")


def _verified(root: Path) -> str:
    """A dataset whose hashes all agree may be whole, but then its rows obey every rule."""
    try:
        report = verify(open_store(root), deep=True)
    except UserError:
        return ""
    if not report.ok:
        return ""
    rules = Rules.of(Dataset(root).info)
    return next((f"verify passes it: {fault}" for batch in _batches(root) for fault in rules.faults(batch)), "")


def _fault(batch: Batch) -> str:
    rules = Rules(64, 2, True)
    return next((f"a row that breaks the rules: {fault}" for fault in rules.misshapen(batch)), "")


def _batches(root: Path) -> Iterator[Batch]:
    try:
        for _, _, batch in Dataset(root).batches():
            yield batch
    except UserError:
        return


def _parts(root: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of everything that a Dataset gives; "UserError" where it does not."""
    try:
        dataset = Dataset(root)
    except UserError:
        return
    yield "length", _told(lambda: len(dataset))
    names = [*dataset.info["files"]["annotations"], "sources", "quarantine"]
    for name in names[:-2]:
        yield f"table {name}", _told(lambda name=name: dataset.annotations(name).to_pylist())
    for name in dataset.info["files"].get("views", {}):
        yield f"view {name}", _told(lambda name=name: dataset.protocol_views(name).to_pylist())
    yield "sources", _told(lambda: dataset.sources().to_pylist())
    yield "quarantine", _told(lambda: dataset.quarantine().to_pylist())
    for i in range(min(len(dataset), 40)):
        yield f"row {i}", _told(lambda i=i: _row(dataset.row(i)))
    yield "windows", _told(lambda: dataset.windows(4))
    for i in (0, 5):
        yield f"window {i}", _told(lambda i=i: dataset.window(i, 4).tokens.tolist())
    yield "frames", _told(lambda: [_row(row) for row in dataset.frames("train/0.mp4")])


def _row(row: Any) -> list[Any]:
    record = row.record
    columns = [getattr(record, name) for name in record.__dataclass_fields__]
    return [*columns, row.codes.tolist(), row.frame_index.tolist(), row.pixels is None or row.pixels.tolist()]


def _told(read: Callable[[], Any]) -> str:
    try:
        return xxhash.xxh3_64_hexdigest(repr(read()).encode("utf-8", "backslashreplace"))
    except (UserError, IndexError, KeyError, ValueError) as error:
        if str(error).startswith("cannot read "):  # an error that was taken for one of the store
            raise RuntimeError(str(error)) from None
        if isinstance(error, ValueError) and "no rows of source" not in str(error):
            raise
        return "UserError" if isinstance(error, UserError) else type(error).__name__


def _reset_peak() -> int:
    """Forgets the highest memory use so far; what is used now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
