"""`toto-tokenize plan`: what it says before the data are there, of GPUs that are not here, and what is missing."""

import json
import os
import re
from pathlib import Path

import pytest
from clips import call, short_error, write_video
from made import NO_CODES, config

from toto.config import load
from toto.shards.store import open_store
from toto.tokenize import plan as plans
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import make_job
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import Listing, Source

ROOTLESS = {"demo"}  # drawn on first use
DATASETS = [name for name in load(("pipelines.yaml",)).datasets if name not in ROOTLESS]


def variable_of(name: str) -> str:
    """The environment variable that says where a dataset lies."""
    found = re.search(r"\$\{(\w+)", load(("pipelines.yaml",)).datasets[name].root)
    assert found
    return found.group(1)


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_that_is_not_here_says_what_is_missing_and_where_people_get_it(name: str, tmp_path: Path) -> None:
    from toto.errors import UsageError, UserError
    from toto.tokenize.cli import resolve
    from toto.tokenize.sources import list_sources

    pipelines = load(("pipelines.yaml",))
    variable, homepage = variable_of(name), pipelines.datasets[name].homepage
    os.environ.pop(variable, None)
    with pytest.raises(UsageError) as unset:
        resolve(name, None, None, (), ("pipelines.yaml",))
    assert variable in str(unset.value) and homepage in str(unset.value)
    for root in (tmp_path / "nowhere", tmp_path):
        config = load(("pipelines.yaml",), (f"datasets.{name}.root={root}",)).dataset(name)
        with pytest.raises(UserError) as error:
            list_sources(config)
        text = str(error.value)
        assert str(root) in text and homepage in text and len(text.splitlines()) <= 3, text


def test_a_dataset_of_the_paper_is_planned_before_it_is_here(tmp_path: Path) -> None:
    done = call("tokenize", "plan", "k600", "--published", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout.splitlines()[-1])
    frames = 41_300_000_000 // 256  # Table 2: 256 tokens for each frame
    assert planned["frames_decoded"] == frames and planned["frames_kept"] == -(-frames // 4)
    assert planned["tokens_every_frame"] == frames * 256 and planned["sources"] is None
    assert planned["decode_core_hours"] > 0 and planned["price"] > 0 and "the paper's (Table 2)" in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_the_paper_does_not_count_cannot_be_planned_so(tmp_path: Path) -> None:
    error = short_error(call("tokenize", "plan", "k700", "--published", cwd=tmp_path), 2)
    assert "datasets.k700.published_tokens" in error


def test_an_unknown_gpu_names_the_known_ones(tmp_path: Path) -> None:
    error = short_error(call("tokenize", "plan", "k600", "--published", "--gpu", "H1000", cwd=tmp_path), 2)
    assert "H1000" in error and "H100" in error


def test_encoding_on_a_gpu_that_is_not_here_is_planned_by_the_arithmetic_of_the_network(tmp_path: Path) -> None:
    dall_e = pytest.importorskip("dall_e", reason="dall-e is not installed")
    import torch

    encoder = dall_e.Encoder(n_hid=8, vocab_size=64)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    counted = 0

    def count(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * layer.w[0].numel() * out.numel()

    for layer in encoder.modules():
        if hasattr(layer, "kw"):
            layer.register_forward_hook(count)
    with torch.no_grad():
        encoder(torch.zeros(1, 3, 128, 128))
    weights = f"tokenizers.dvae.weights={tmp_path / 'encoder.pt'}"
    sets = ("--set", weights, "--set", "tokenizers.dvae.vocab_size=64")
    options = ("--published", "--tokenizer", "dvae", "--gpu", "A100", "--utilisation", "0.5", "--json")
    done = call("tokenize", "plan", "k600", *sets, *options, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout.splitlines()[-1])
    hours = planned["frames_kept"] * counted / (312e12 * 0.5) / 3600
    assert planned["encode_gpu_hours"] == pytest.approx(hours) and planned["gpu"] == "A100"
    assert planned["price_with_gpu"] == pytest.approx(planned["decode_core_hours"] * 0.04 + hours * 2.5)


def test_a_header_that_claims_more_frames_than_its_file_can_hold_does_not_make_the_plan(tmp_path: Path) -> None:
    data = bytearray(write_video(tmp_path / "videos" / "liar.avi", 30, codec="mpeg4").read_bytes())
    for chunk, field in ((b"avih", 16), (b"strh", 32)):  # dwTotalFrames, dwLength
        at = data.find(chunk) + 8 + field
        data[at : at + 4] = (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "videos" / "liar.avi").write_bytes(data)
    asked = config(tmp_path / "videos")
    (frames,) = Estimator(make_job(asked, NO_CODES, "out")).kept_frames(list_sources(asked).sources)
    assert 30 <= frames <= len(data) // 8


def test_a_plan_holds_no_secret_of_the_sources_address_and_of_an_older_one_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "set")
    listing = Listing([Source("a.mp4", "/a.mp4", "video", "all", None, 9)], {}, {})

    def planned(root: str) -> bytes:
        """The newest plan, with one source more."""
        listing.sources.append(Source(f"{len(listing.sources)}.mp4", "/b.mp4", "video", "all", None, 9))
        job = make_job(config(root), NO_CODES, str(tmp_path / "set"))
        plans.extend_plans(store, job, listing, lambda sources: [1] * len(sources), None)
        return store.read(store.list(plans.FOLDER)[-1])

    assert b"hush" not in planned("http://me:hush@host/videos?token=hush")
    with monkeypatch.context() as patch:
        patch.setattr(plans, "shown", lambda text: text)
        assert b"hush" in planned("http://me:hush@host/videos")
    assert plans.read_plans(store).root == "http://host/videos"
