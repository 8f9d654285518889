"""The parent's handle to decoding: a child process that may hang, crash or eat memory, and is then replaced.

    with Decoder(timeout_s=60, memory_mb=4096) as decoder:
        for part in decoder.decode(request):
            ...    # Block, Block, …, SourceInfo

One source at a time. The child lives for 256 videos, or 4,096 pictures, or until it fails.
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Self

from toto.tokenize.child_process import ChildProcess, Ended, Silence
from toto.tokenize.clip import REASONS, Block, DecoderDied, DecodeRequest, SourceError, SourceInfo
from toto.tokenize.probe import Probe
from toto.tokenize.wire import Message, to_block

SOURCES_PER_CHILD = 256  # decoders leak: PyAV's containers, fragmented heaps
PICTURE = 1 / 16  # of a video; a child takes half a second to start, as long as 200 small pictures take


class Decoder:
    """Decodes sources one after another in a killable child.

    `timeout_s`: a source that decodes no frame for so long is killed. `memory_mb`: address space of the child
    (RLIMIT_AS, on Linux). Raises UserError when a child cannot be started.
    """

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._child: ChildProcess | None = None
        self._served = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.pid if self._child else None

    def close(self) -> None:
        """Ends the child, at once. The Decoder can still be used: the next source starts another."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def decode(self, request: DecodeRequest) -> Iterator[Block | SourceInfo]:
        """The blocks of a source in the order of clip.py, then its SourceInfo.

        Raises SourceError (the source's fault) or DecoderDied (perhaps not), both also after blocks were
        given. An iterator that is not read to its end costs the child.
        """
        child = self._ready_child({"decode": asdict(request)}, PICTURE if request.kind == "image" else 1)
        whole = False
        try:
            while not whole:
                message, body = self._receive(child)
                whole = message["type"] in ("info", "error")
                part = _part(message, body)
                if part is not None:
                    yield part
        finally:
            if not whole:
                self.close()

    def probe(self, uri: str, kind: str) -> Probe | None:
        """What the header of a "video" or "image" source says; None for one that cannot be read, or that kills."""
        try:
            message, _ = self._receive(self._ready_child({"probe": (uri, kind)}))
            return Probe(**message["probe"]) if message.get("probe") else None
        except (SourceError, DecoderDied):
            self.close()
            return None

    def _ready_child(self, request: dict[str, Any], share: float = 1) -> ChildProcess:
        """A child that has the request, which uses up a share of it. One that died while idle is replaced silently."""
        line = json.dumps(request).encode()
        if self._served >= SOURCES_PER_CHILD or (self._child is not None and not self._child.alive):
            self.close()
        for last_try in (False, True):
            if self._child is None:
                limits = (str(self._memory_mb), str(self._timeout_s))
                self._child, self._served = ChildProcess("toto.tokenize.decode_child", *limits), 0.0
            try:
                self._child.send(line)
                break
            except OSError as error:
                self.close()
                if last_try:
                    raise DecoderDied("crash", "the decoder's process died before it got the source") from error
        assert self._child is not None
        self._served += share
        return self._child

    def _receive(self, child: ChildProcess) -> tuple[Message, memoryview]:
        try:
            return child.receive(self._timeout_s)
        except Silence:
            raise SourceError("timeout", f"no frame was decoded for {self._timeout_s:g} s") from None
        except Ended as end:
            raise _died(end.returncode, child.stderr_tail()) from None
        except ValueError as error:
            raise DecoderDied("crash", f"the decoder's process sent nonsense: {error}") from error


def _part(message: Message, body: memoryview) -> Block | SourceInfo | None:
    """What a message brings; None for a sign of life. Raises what the child reports."""
    try:
        match message["type"]:
            case "block":
                return to_block(message, body)
            case "info":
                return SourceInfo(**message["info"])
            case "error" if message["reason"] in REASONS:
                raise SourceError(message["reason"], message["detail"])
            case "oom":
                raise DecoderDied("oom", message["detail"])
            case "beat":
                return None
        raise ValueError(f"an unknown message {message['type']!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DecoderDied("crash", f"the decoder's process sent nonsense: {error!r}") from error


def _died(returncode: int, last_words: str) -> DecoderDied:
    """By its return code: SIGKILL that is not ours comes from the kernel, which was out of memory."""
    cause = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
    reason = "oom" if returncode == -signal.SIGKILL else "crash"
    return DecoderDied(reason, f"the decoder's process died: {cause}; {last_words}"[:600])
