"""Which decoded frames are kept, and how kept frames are cut into runs."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toto.tokenize.picture import Picture
from toto.tokenize.runs import LONGEST_RUN, cut_runs, groups
from toto.tokenize.sampling import Clock, by_position, by_rate, by_stride, spread


def decoded(times_us: Sequence[int | None]) -> Iterator[Picture]:
    """Decoded frames with these times; sampling never looks into a frame."""
    return (Picture(i, time, cast(Any, None)) for i, time in enumerate(times_us))


def indices(kept: Iterator[Picture]) -> list[int]:
    return [picture.index for picture in kept]


def even_us(frames: int, rate: float, start_us: int = 0) -> list[int]:
    return [start_us + round(1e6 * i / rate) for i in range(frames)]


@given(st.integers(0, 200), st.integers(1, 9))
def test_stride_keeps_every_nth_decoded_frame(frames: int, stride: int) -> None:
    assert indices(by_stride(decoded([None] * frames), stride)) == list(range(0, frames, stride))


@given(st.integers(1, 300), st.sampled_from([(30, 7.5, 4), (25, 12.5, 2), (24, 24, 1), (29.97, 29.97, 1)]))
def test_a_rate_that_divides_the_source_equals_a_stride(frames: int, rates: tuple[float, float, int]) -> None:
    source, wanted, stride = rates
    kept = indices(by_rate(decoded(even_us(frames, source, 8_333_000)), wanted, source))
    assert kept == list(range(0, frames, stride))


def test_times_rounded_to_milliseconds_do_not_shift_the_grid() -> None:
    rounded = [1000 * round(1000 * i / 30) for i in range(300)]  # as Matroska and FLV store them
    assert indices(by_rate(decoded(rounded), 7.5, 30)) == list(range(0, 300, 4))


def test_a_rate_above_the_source_repeats_frames() -> None:
    assert indices(by_rate(decoded(even_us(3, 10)), 20, 10)) == [0, 0, 1, 1, 2, 2]


def test_a_still_is_kept_as_long_as_it_is_on_screen() -> None:
    assert indices(by_rate(decoded([0, 100_000, 1_100_000]), 5, 10)) == [0, 1, 1, 1, 1, 1]


def test_frames_without_times_follow_the_claimed_rate() -> None:
    assert indices(by_rate(decoded([None] * 50), 5, 25)) == list(range(0, 50, 5))


def test_times_out_of_order_never_reorder_frames() -> None:
    swapped = [0, 80_000, 40_000, 120_000, 200_000, 160_000, 240_000]  # B-frames in AVI
    kept = indices(by_rate(decoded(swapped), 25, 25))
    assert kept == sorted(kept)
    assert {0, 6} <= set(kept)


@pytest.mark.parametrize("jump_us", [-50_000_000, 10**15])
def test_a_jump_of_the_clock_neither_loses_nor_multiplies_frames(jump_us: int) -> None:
    times = even_us(50, 25) + even_us(50, 25, jump_us)
    assert indices(by_rate(decoded(times), 25, 25)) == list(range(100))


@given(st.lists(st.one_of(st.none(), st.integers(-(10**12), 10**12)), max_size=60), st.floats(0.5, 60))
def test_the_clock_never_runs_backwards_or_stands_more_than_a_minute(times: list[int | None], rate: float) -> None:
    clock = Clock(rate)
    ticks = [clock.tick(time) for time in times]
    assert all(0 <= later - earlier <= 60_000_000 for earlier, later in itertools.pairwise(ticks))


@given(st.integers(1, 400), st.integers(1, 40))
@example(300, 64)
def test_uniform_positions_are_numpys(frames: int, wanted: int) -> None:
    positions = spread(frames, wanted)
    assert positions == [int(p) for p in np.round(np.linspace(0, frames - 1, wanted))]
    assert indices(by_position(decoded([None] * frames), positions)) == positions


@given(st.integers(0, 400), st.integers(1, 70))
def test_runs_cover_all_frames_in_order_and_leave_no_short_rest(frames: int, run_frames: int) -> None:
    cut = list(cut_runs(range(frames), run_frames))
    assert [item for _, item in cut] == list(range(frames))
    assert [run for run, _ in cut] == sorted(run for run, _ in cut)
    lengths = [len(list(of_run)) for _, of_run in itertools.groupby(run for run, _ in cut)]
    shortest = min(16, run_frames)
    assert all(length == run_frames for length in lengths[:-1])
    assert all(shortest <= length < run_frames + shortest for length in lengths[-1:] if frames >= shortest)


@pytest.mark.parametrize(("frames", "lengths"), [(64, [64]), (79, [79]), (80, [64, 16]), (143, [64, 79]), (5, [5])])
def test_a_rest_under_sixteen_joins_the_run_before_it(frames: int, lengths: list[int]) -> None:
    runs = [run for run, _ in cut_runs(range(frames), 64)]
    assert [runs.count(run) for run in sorted(set(runs))] == lengths


def test_a_run_without_limit_ends_where_its_length_no_longer_fits_the_column() -> None:
    runs = [run for run, _ in cut_runs(range(LONGEST_RUN + 3), None)]
    assert (runs.count(0), runs.count(1)) == (65_535, 3)


def test_runs_are_told_as_soon_as_they_are_certain() -> None:
    drawn = 0

    def source() -> Iterator[int]:
        nonlocal drawn
        while drawn < 1000:
            drawn += 1
            yield drawn

    ahead = []
    for given_out, _ in enumerate(cut_runs(source(), 64), 1):
        ahead.append(drawn - given_out)
    assert max(ahead) == 15


@given(st.integers(0, 200), st.integers(1, 70), st.integers(1, 20))
def test_groups_never_cross_a_run_and_are_as_long_as_allowed(frames: int, run_frames: int, size: int) -> None:
    cut = list(cut_runs(range(frames), run_frames))
    grouped = list(groups(cut, size))
    assert [(run, item) for run, group in grouped for item in group] == cut
    for (run, group), (next_run, _) in itertools.pairwise(grouped):
        assert len(group) == size or run != next_run
