"""Mixtures whose weights change: from pipelines.yaml through plan and pretrain to the sequences that were read."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from token_world import moving_videos, still_images, write_tokens
from train_toy import call, history, sets

from toto.errors import UsageError
from toto.shards.recipe import Recipe, make_recipe
from toto.shards.stream import Stream, open_run
from toto.shards.streaming.mixture import Phase
from toto.shards.streaming.shares import Later
from toto.train.cli import cli

DATASETS = "datasets: {{one: {{layout: folder, root: x}}, two: {{layout: folder, root: x}}}}\nmixtures:\n  mine: {}\n"
STAGED = "{phases: [{weights: {one: 1}}, {from_step: 3, weights: {one: 1, two: {video: 2, image: 1}}}]}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with shards of two datasets where toto-train looks for them."""
    monkeypatch.setenv("TOTO_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    write_tokens(tmp_path / "data" / "one" / "dct-128", [*moving_videos(24), *moving_videos(8, "val", seed=3)])
    two = [*moving_videos(12, seed=1), *moving_videos(8, "val", seed=2)]
    write_tokens(tmp_path / "data" / "two" / "dct-128", two, still_images(20))
    return tmp_path


def arguments(place: Path, command: str, mixture: str, *more: str) -> list[str]:
    (place / "mixtures.yaml").write_text(DATASETS.format(mixture))
    asked = sets(mixture="mine", steps=6, hop=2, kinds="all", checkpoint_every=3, validate_every=6)
    return [command, "--config", "mixtures.yaml", "--size", "tiny", "--recipe", "demo", *asked, *more]


def test_the_weights_of_a_run_change_at_their_step_and_it_goes_on_in_any_phase(place: Path) -> None:
    for stop in ("2", "6"):
        ended = call(arguments(place, "pretrain", STAGED, "--out", "run", "--stop-at", stop), place / "run")
        assert ended.code == 0, ended.stderr
    stream = open_run(place / "run")
    assert stream.parts == ("one", "two:video", "two:image")
    assert stream.recipe.hop == 2
    assert stream.recipe.phases == (Phase(0, (1, 0, 0)), Phase(3 * 8, (1, 2, 1)))
    lines = [line for line in history(place / "run") if "batch" in line]
    assert [set(line["losses"]) for line in lines] == [{"one"}] * 3 + [{*stream.parts}] * 3
    read = [f"{stream.sequences(range(8 * i, 8 * i + 8)).hash:016x}" for i in range(6)]
    assert [line["batch"] for line in lines] == read
    changed = arguments(place, "pretrain", STAGED.replace("from_step: 3", "from_step: 4"), "--out", "run")
    done = CliRunner().invoke(cli, changed, standalone_mode=False)
    assert "holds a run whose mixture mine had other phases" in str(done.exception)


def test_epochs_of_a_plan_count_every_phase(place: Path) -> None:
    done = CliRunner().invoke(cli, [*arguments(place, "plan", STAGED), "--json"], standalone_mode=False)
    assert done.exception is None, done.output
    told: dict[str, Any] = {source["name"]: source for source in json.loads(done.stdout.splitlines()[-1])["sources"]}
    assert told["one"]["share"] == pytest.approx((3 + 3 / 4) / 6) and told["two"]["share"] == pytest.approx(3 / 8)
    assert told["one"]["epochs"] == pytest.approx(8 * 3.75 / (24 * 3))  # of 8 frames: windows of 4, 2 apart


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ("{phases: []}", "mixtures.mine: either datasets with weights, or `phases`, a list of them"),
        ("{one: 1, phases: [{weights: {one: 1}}]}", "either datasets with weights"),
        ("{phases: [{weights: {one: 1}}, {weights: {two: 1}}]}", r"phases\[1\]: one of from_step, from_sequence"),
        ("{phases: [{weights: {one: 1}, from_step: 2}]}", r"phases\[0\]: starts at step 2; the first phase starts at"),
        ("{phases: [{weights: {one: 1}}, {from_step: -1, weights: {one: 1}}]}", "from_step: -1 is not a whole number"),
        ("{phases: [{weights: {oe: 1}}]}", "unknown dataset 'oe'; did you mean 'one'"),
        ("{phases: [{weights: {one: 0}}]}", "weights sum to 0"),
        ("{one: {video: 1, sound: 2}}", "is not a whole number from 0 to 10000, or one for each of video and image"),
        ("{one: {video: 9000, image: 9000}}", "weights sum to 18000"),
        ("{phases: [{weights: {one: 1}}, {from_tokens: 5, from_step: 5, weights: {one: 1}}]}", "says where it starts"),
        ("{one: {image: 1}}", "one: .* holds no image"),
        ("{two: 1, one: {image: 1, video: 1}}", "one: a weight for image, of which it holds none"),
        (
            "{phases: [{weights: {one: 1}}, {from_step: 5, weights: {two: 1}}, {from_sequence: 8, weights: {one: 1}}]}",
            "phases from sequences 0, 40, 8: each must start after the one before",
        ),
    ],
)
def test_a_wrong_mixture_is_refused_before_anything_is_written(place: Path, mixture: str, said: str) -> None:
    done = CliRunner().invoke(cli, arguments(place, "pretrain", mixture, "--out", "run"), standalone_mode=False)
    with pytest.raises(Exception, match=said):
        raise done.exception or AssertionError(done.output)
    assert not (place / "run" / "recipe.json").exists()


def test_weights_for_videos_and_images_are_kept_and_large_ones_can_be_split(place: Path) -> None:
    both = str(place / "data" / "two" / "dct-128")

    def made(weight: Any, *others: tuple[str, str, int, None], later: tuple[Later, ...] = ()) -> Recipe:
        return make_recipe([("two", both, weight, "train"), *others], 4, 4, 0, 8, later=later)

    assert made({"video": 3, "image": 1}).phases == (Phase(0, (3, 1)),)
    only = made({"video": 3, "image": 0})
    assert [part.name for part in only.parts] == ["two"] and only.parts[0].kind == "video"
    alone = ("one", str(place / "data" / "one" / "dct-128"), 9_000, None)
    large = made(1, alone)  # one weight of 9,001 that two kinds share
    assert large.phases == (Phase(0, (1, 1, 18_000)),) and Stream(large).counts(18_002)["one"] == 18_000
    grown = made(0, alone, later=(Later(1000, "tokens", {"two": 1}),))
    assert grown.phases[1].from_sequence == 16  # 1,000 codes are 15.6 sequences of 64
    with pytest.raises(UsageError, match="phases name three, which is no dataset"):
        made(1, later=(Later(5, "step", {"three": 1}),))
    with pytest.raises(UsageError, match="two: its weight for image and video is 0 throughout; leave it out"):
        made(0, alone)
