"""Units follow from the sources and the content settings alone."""

from hypothesis import given
from hypothesis import strategies as st

from toto.tokenize.units import MAX_SOURCES, MAX_TOKENS, MIN_TOKENS, PlannedSource, Unit, cut_units

SETTINGS = {"stride": 4, "tokenizer": "x"}


def source(i: int, frames: int, split: str = "train", size: int = 10) -> PlannedSource:
    return PlannedSource(f"{split}/{i:06d}.mp4", split, "video", None, size, 0, "", frames)


SOURCES = st.lists(st.tuples(st.sampled_from(["train", "val"]), st.integers(1, 3000)), max_size=60).map(
    lambda items: [source(i, frames, split) for i, (split, frames) in enumerate(sorted(items, key=lambda x: x[0]))]
)


@given(SOURCES)
def test_every_source_is_in_one_unit_in_order_and_splits_do_not_mix(sources: list[PlannedSource]) -> None:
    units = list(cut_units(sources, 256, SETTINGS))
    assert [s for unit in units for s in unit.sources] == sources
    assert all({s.split for s in unit.sources} == {unit.split} for unit in units)
    assert len({unit.id for unit in units}) == len(units)


@given(SOURCES)
def test_a_unit_closes_at_its_share_of_the_tokens(sources: list[PlannedSource]) -> None:
    units = list(cut_units(sources, 256, SETTINGS))
    target = min(max(sum(s.estimated_frames for s in sources) * 256 // 1024, MIN_TOKENS), MAX_TOKENS)
    for unit in units:
        assert (unit.estimated_frames - unit.sources[-1].estimated_frames) * 256 < target


def test_many_small_sources_make_units_of_at_most_4096() -> None:
    units = list(cut_units([source(i, 1) for i in range(10_000)], 1, SETTINGS))
    assert [len(unit.sources) for unit in units] == [MAX_SOURCES, MAX_SOURCES, 10_000 - 2 * MAX_SOURCES]


def test_the_id_depends_on_keys_sizes_settings_and_attempt_only() -> None:
    def one(size: int = 10, settings: dict = SETTINGS, attempt: int = 0, frames: int = 5) -> str:
        (unit,) = cut_units([source(0, frames, size=size)], 256, settings, attempt)
        assert isinstance(unit, Unit)
        return unit.id

    assert one() == one(frames=6)
    assert len({one(), one(size=11), one(settings={**SETTINGS, "stride": 8}), one(attempt=1)}) == 4
