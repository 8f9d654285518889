"""Index lists of evaluation protocols: those of the official samplers, and always to be found among what rows store."""

import json

import numpy as np
import pytest
import torch
from clips import ROOT
from footage import request
from hypothesis import given
from hypothesis import strategies as st

from toto.errors import UsageError
from toto.shards.protocols import EXAMPLES, Protocol, beside_grid, parse, stored_frames
from toto.tokenize.crop import boxes

GOLDEN = ROOT / "tests" / "golden" / "views"
protocols = st.sampled_from([*EXAMPLES, "slowfast-3x3-8f8", "videomae-2x1-8f2", "jepa-2x1-16f4", "single-1x3-5f3"])
counts = st.integers(1, 400)
rates = (
    st.none() | st.sampled_from([24_000 / 1001, 24.0, 25.0, 30_000 / 1001, 30.0, 50.0, 60.0]) | st.floats(0.001, 1e4)
)


def test_slowfast_takes_the_frames_that_its_own_sampler_printed() -> None:
    cases = json.loads((GOLDEN / "slowfast_temporal.json").read_text())["cases"]
    cases = [case for case in cases if not case["use_offset"]]
    assert len(cases) == 54
    for case in cases:
        protocol = Protocol("slowfast", case["num_views"], 1, case["num_frames"], case["sampling_rate"])
        assert protocol.indices(case["video_frames"]).tolist() == [view["frames"] for view in case["views"]]


def test_slowfast_takes_the_frames_that_its_own_decoder_printed_at_other_rates() -> None:
    cases = json.loads((GOLDEN / "slowfast_rates.json").read_text())["cases"]
    assert len({case["fps"] for case in cases}) == 9
    for case in cases:
        protocol = Protocol("slowfast", case["num_views"], 1, case["num_frames"], case["sampling_rate"])
        assert protocol.indices(case["video_frames"], case["fps"]).tolist() == case["views"], case


def test_videomae_and_jepa_take_the_frames_that_their_own_samplers_printed() -> None:
    for case in json.loads((GOLDEN / "videomae_jepa_temporal.json").read_text())["cases"]:
        protocol = Protocol(case["family"], case["clips"], 1, case["num_frames"], case["stride"])
        assert protocol.indices(case["video_frames"]).tolist() == case["views"], case


@given(counts, rates, st.integers(1, 10), st.integers(2, 32), st.integers(1, 8))
def test_slowfast_agrees_with_torchs_linspace(
    count: int, rate: float | None, clips: int, frames: int, stride: int
) -> None:
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("torch rounds twice on a CPU without fused multiply-add")
    size = max(frames * stride * (rate or 30) / 30, 1)
    starts = [max(count - size, 0) * k / clips for k in range(clips)]
    expected = [torch.linspace(s, s + size - 1, frames).clamp(0, count - 1).long().tolist() for s in starts]
    assert Protocol("slowfast", clips, 1, frames, stride).indices(count, rate).tolist() == expected


def test_sixteen_by_four_of_slowfast_is_not_every_fourth_frame() -> None:
    assert parse("slowfast-1x1-16f4").indices(64)[0, :6].tolist() == [0, 4, 8, 12, 16, 21]
    assert parse("single-1x1-16f4").indices(64)[0, :6].tolist() == [0, 4, 8, 12, 16, 20]


def test_the_single_clip_is_the_middle_one() -> None:
    assert parse("single-1x1-16f4").indices(300)[0].tolist() == list(range(116, 180, 4))
    assert parse("single-1x1-4f2").indices(3)[0].tolist() == [0, 2, 2, 2]


@given(protocols, counts, rates)
def test_every_clip_has_its_frames_in_order_and_inside_the_video(name: str, count: int, rate: float | None) -> None:
    protocol = parse(name)
    found = protocol.indices(count, rate)
    assert found.shape == (protocol.clips, protocol.frames) and protocol.name == name
    assert found.min() >= 0 and found.max() < count and (np.diff(found) >= 0).all()


@given(protocols, counts, rates, st.integers(1, 9))
def test_positions_lead_back_to_the_official_frames(name: str, count: int, rate: float | None, stride: int) -> None:
    protocol = parse(name)
    stored = stored_frames(count, rate, stride, [protocol])
    assert set(range(0, count, stride)) <= set(stored.tolist()) and (np.diff(stored) > 0).all()
    wanted = protocol.indices(count, rate)
    assert np.array_equal(stored[np.searchsorted(stored, wanted)], wanted)
    if protocol.on_grid(stride):
        assert np.array_equal(stored, np.arange(0, count, stride))


def test_rows_of_train_stay_on_the_grid_and_others_hold_what_does_not_lie_there() -> None:
    settings = {"stride": 4, "protocols": ["jepa-8x3-16f4", "slowfast-10x3-16f4", "videomae-5x3-16f4"]}
    assert [protocol.family for protocol in beside_grid(settings, "val")] == ["jepa", "slowfast"]
    assert beside_grid(settings, "train") == [] and beside_grid({**settings, "stride": 1}, "val") == []


def test_three_crops_are_slowfasts_to_the_pixel() -> None:
    for case in json.loads((GOLDEN / "slowfast_spatial.json").read_text()):
        height, width = case["scaled_hw"]
        found = boxes(request("a", crop="three", views=3, resolution=128), (width, height), 0)
        assert [box[:2] for box in found] == [(x, y) for y, x in case["crop_yx_offset_idx0_1_2"]]


@pytest.mark.parametrize(
    "name",
    ["slowfast", "fast-1x1-16f4", "slowfast-0x3-16f4", "slowfast-01x3-16f4", "slowfast-1x2-16f4", "single-2x1-16f4",
     "videomae-1x3-16f4", "slowfast-10x3-16f4\n", "single-1x1-60000f2", "../x"],
)  # fmt: skip
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="protocol"):
        parse(name)
