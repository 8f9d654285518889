"""Blocks of many callers in common batches: everybody gets the codes of his own pictures, in their order."""

import asyncio
from typing import Any

import numpy as np
import pytest

from toto.errors import UserError
from toto.tokenize.gather import Gatherer
from toto.tokenize.tokenizers.dct import DCT


class Counting:
    """`dct-64` that wants batches of one size, and notes those that it gets."""

    vocab_size, patch = 64, 8

    def __init__(self, batch: int | None) -> None:
        self._dct = DCT(64)
        self.spec, self.batch = self._dct.spec, batch
        self.sizes: list[int] = []

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pictures))
        if (pictures == 255).all(axis=(1, 2, 3)).any():
            raise ValueError("a white picture")
        return self._dct.encode(pictures)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return self._dct.decode(codes)


def blocks(sizes: list[int], side: int = 16) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(sizes))
    return [rng.integers(0, 255, (n, side, side, 3), dtype=np.uint8) for n in sizes]


def gathered(tokenizer: Counting, given: list[np.ndarray]) -> list[np.ndarray | BaseException]:
    async def all_at_once() -> list[np.ndarray | BaseException]:
        gatherer = Gatherer(tokenizer)
        return await asyncio.gather(*map(gatherer.encode, given), return_exceptions=True)

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("batch", [8, 24, None])
def test_each_caller_gets_the_codes_of_its_own_pictures(batch: int | None) -> None:
    given = [*blocks([16, 1, 1, 3, 16, 7]), *blocks([2, 16], side=24)]
    tokenizer, alone = Counting(batch), DCT(64)
    for frames, codes in zip(given, gathered(tokenizer, given), strict=True):
        np.testing.assert_array_equal(codes, alone.encode(frames.transpose(0, 3, 1, 2)))


def test_single_pictures_share_batches_and_only_the_last_one_is_filled_up() -> None:
    tokenizer = Counting(8)
    assert len(gathered(tokenizer, blocks([1] * 20))) == 20
    assert tokenizer.sizes == [8, 8, 8]


def test_a_tokenizer_without_a_size_is_never_given_zeros() -> None:
    tokenizer = Counting(None)
    gathered(tokenizer, blocks([5, 3]))
    assert sum(tokenizer.sizes) == 8


def test_an_error_reaches_those_whose_pictures_were_in_the_batch_and_nobody_else() -> None:
    white = np.full((8, 16, 16, 3), 255, np.uint8)
    good, bad, after = gathered(Counting(8), [*blocks([8]), white, *blocks([8])])
    assert isinstance(bad, ValueError)
    assert isinstance(good, np.ndarray) and isinstance(after, np.ndarray)


def test_what_is_no_code_reaches_nobody() -> None:
    class OneTooMany(Counting):
        def encode(self, pictures: np.ndarray) -> np.ndarray:
            return np.maximum(super().encode(pictures), 64)

    ends = gathered(OneTooMany(8), blocks([8, 3, 7]))
    assert [type(end) for end in ends] == [UserError] * 3 and "codes from 64 to 64" in str(ends[0])


class FakeRay:
    """Stands where ray does: an actor's answer is there once somebody waits for it, the oldest first."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, np.ndarray]] = []

    def get_runtime_context(self) -> "FakeRay":
        return self

    def get_node_id(self) -> str:
        return "here"

    def wait(self, refs: list[int]) -> tuple[list[int], list[int]]:
        return refs[:1], refs[1:]

    def get(self, ref: int) -> np.ndarray:
        return self.sent[ref][1]


class _Actor:
    """What a worker sees of a tokenizer actor."""

    def __init__(self, fake: FakeRay, node: str) -> None:
        self._fake, self._node, self.encode = fake, node, self

    def options(self, **how: Any) -> "_Actor":
        return self

    def remote(self, planes: np.ndarray) -> int:
        self._fake.sent.append((self._node, planes))
        return len(self._fake.sent) - 1


def test_frames_go_to_the_own_node_first_and_no_more_bytes_are_on_the_way_than_a_workers_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from toto.tokenize import tokenizer_actor

    fake, frames = FakeRay(), np.zeros((1, 8, 8, 3), np.uint8)
    monkeypatch.setattr(tokenizer_actor, "ray", fake)
    monkeypatch.setattr(tokenizer_actor, "LEAST_SHARE", frames.nbytes)
    monkeypatch.setattr(tokenizer_actor, "BYTES_IN_FLIGHT", 8 * frames.nbytes)
    encoder, share = tokenizer_actor.RemoteEncoder(), tokenizer_actor.share(2, 2)
    assert share == 8 * frames.nbytes
    ready = [tokenizer_actor.Ready(_Actor(fake, node), node, [], {"ids": node}) for node in ("there", "here")]
    encoder.use(ready, share)
    waiting = [encoder.submit(frames + i) for i in range(5)]
    assert [name for name, _ in fake.sent] == ["here"] * 4 + ["there"], "it has half a share more than the other"
    waiting += [encoder.submit(frames + i) for i in range(5, 40)]
    assert encoder.in_flight <= share and {name for name, _ in fake.sent} == {"here", "there"}
    assert [take()[0, 0, 0, 0] for take in waiting] == list(range(40)) and encoder.in_flight == 0
