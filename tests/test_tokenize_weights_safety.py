"""Weights of strangers: what asks for endless time or memory is ended, and what is no right network is not taken."""

import os
import signal
import struct
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from toto.errors import UserError
from toto.tokenize import weights_child
from toto.tokenize.tokenizers.dvae_net import DVAEEncoder, DVAESize
from toto.tokenize.weights_convert import write_converted
from toto.tokenize.weights_reading import MAX_NAMES

STATE = DVAEEncoder(DVAESize(hidden=8, blocks=1, vocab_size=64)).state_dict()
FIRST, DEEP = "blocks.input.weight", "blocks.group_3.block_1.res_path.conv_2.weight"
LAUGHS = (
    b"\x80\x02}(K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"K\x01u."
)  # ((1, 1), (1, 1)) … as key
HUGE = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R."  # 2 GB of zeros


def with_pickle(path: Path, body: bytes) -> Path:
    """A file as torch.save writes it, with another pickle in it."""
    torch.save({FIRST: torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, body if name.endswith("data.pkl") else data)
    return path


def convert(path: Path, tensors: Any, kind: str = "dvae-encoder") -> None:
    """Saves and converts, in this process."""
    torch.save(tensors, path)
    write_converted(kind, path, path.with_suffix(".safetensors"), "")


def still_reading(path: Path) -> bool:
    """Whether a child process reads this file."""
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(path).encode() in found.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_pickle_that_computes_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_child, "PATIENCE_S", 2.0)
    path = with_pickle(tmp_path / "encoder.pt", LAUGHS)
    with pytest.raises(UserError, match="not read in 2 s"):
        weights_child.convert("dvae-encoder", path, tmp_path / "out", "")
    assert not still_reading(path)


def test_ctrl_c_ends_the_reading_of_a_pickle(tmp_path: Path) -> None:
    path, pressed = with_pickle(tmp_path / "encoder.pt", LAUGHS), list[float]()

    def press() -> None:
        while not still_reading(path):
            time.sleep(0.01)
        time.sleep(0.3)  # until it waits for the child that it has just started
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        threading.Thread(target=press, daemon=True).start()
        weights_child.convert("dvae-encoder", path, tmp_path / "out", "")
    assert not still_reading(path) and time.monotonic() - pressed[0] < weights_child.PATIENCE_S


def test_a_pickle_that_asks_for_gigabytes_gets_none(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "encoder.pt", HUGE)
    with pytest.raises(UserError, match="not taken") as error:
        weights_child.convert("dvae-encoder", path, tmp_path / "out", "")
    assert len(str(error.value).splitlines()) == 1


def test_names_that_share_their_bytes_do_not_multiply_them(tmp_path: Path) -> None:
    shared = torch.zeros(64, 1024)
    with pytest.raises(UserError, match="share their bytes"):
        convert(tmp_path / "encoder.pt", {**STATE, **{f"blocks.x{i}": shared for i in range(50)}})
    convert(tmp_path / "extra.pt", {**STATE, **{f"other.x{i}": shared for i in range(50)}})  # not of the network


def test_modules_that_hold_one_child_twice_are_bounded(tmp_path: Path) -> None:
    module: nn.Module = nn.Conv2d(1, 1, 1)
    for _ in range(40):
        outer = nn.Sequential()
        outer._modules["a"] = outer._modules["b"] = module
        module = outer
    with pytest.raises(UserError, match=f"more than {MAX_NAMES:,} tensors"):
        convert(tmp_path / "encoder.pkl", module)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (FIRST, lambda t: t * float("nan"), "not finite"),
        (FIRST, lambda t: t.double() * 1e300, "not finite"),
        (FIRST, lambda t: t.to(torch.complex64), "complex"),
        (DEEP, lambda t: None, f"{DEEP} has shape None"),
        (DEEP, lambda t: t[:1], f"{DEEP} has shape"),
    ],
    ids=["nan", "too large for float32", "complex", "missing", "misshapen"],
)
def test_weights_that_are_no_right_network_are_refused_when_they_are_fetched(
    tmp_path: Path, name: str, change: Callable[[Tensor], Tensor | None], said: str
) -> None:
    state = {**STATE, name: change(STATE[name])}
    with pytest.raises(UserError, match=said):
        convert(tmp_path / "encoder.pt", {key: tensor for key, tensor in state.items() if tensor is not None})
    assert not (tmp_path / "encoder.safetensors").exists()
