"""A shard's bytes from first to last, read once: its sha256 grows while its batches are looked at."""

import hashlib
from collections import deque

from toto.shards.shard_file import ShardFile

CHUNK = 8 << 20


class ReadOnce:
    """A ShardFile for who asks for batches in their order. What lies far ahead, as the footer of a long file does, is
    read beside that. Memory: two chunks, and the batch that is read."""

    def __init__(self, file: ShardFile) -> None:
        self._file, self.size = file, file.size
        self._hasher = hashlib.sha256()
        self._held: deque[tuple[int, bytes]] = deque([(0, b"")])  # chunks with their places, the last ones hashed

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes; ValueError where the file ends before."""
        end = start + length
        if start < self._held[0][0] or start > self._hashed + CHUNK:
            return self._file.read(start, length)
        while self._hashed < min(end, self.size):
            self._advance()
        parts = [data[max(0, start - at) : end - at] for at, data in self._held if at < end and start < at + len(data)]
        if sum(map(len, parts)) != length:
            raise ValueError(f"the file ends within bytes {start:,} … {end:,}")
        while len(self._held) > 2 and self._held[1][0] <= start:
            self._held.popleft()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sha256(self) -> str:
        """Hex, of the whole file; reads what was not read yet."""
        while self._hashed < self.size:
            self._advance()
            self._held = deque([self._held[-1]])
        return self._hasher.hexdigest()

    def close(self) -> None:
        """Closes the file below."""
        self._file.close()

    @property
    def _hashed(self) -> int:
        at, data = self._held[-1]
        return at + len(data)

    def _advance(self) -> None:
        at = self._hashed
        data = self._file.read(at, min(CHUNK, self.size - at))
        self._hasher.update(data)
        self._held.append((at, data))
