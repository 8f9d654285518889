"""The whole demo, on a world of a few clips and with a few steps: every command, every number, the page."""

import json
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import browser
import pytest
import yaml
from clips import ROOT, call
from test_demo import scripts  # noqa: F401
from test_docs import SMALL, TINY
from warm_scripts import stand_beside

from toto.tokenize.demo import build

SHORT = {"steps": 6, "validate_every": 3}


@pytest.fixture(scope="module")
def done(scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:  # noqa: F811
    folder = tmp_path_factory.mktemp("whole demo")
    build(folder / "data" / "demo-world", TINY)
    config = yaml.safe_load((ROOT / "pipelines.yaml").read_text())
    config["models"]["tiny"] |= SMALL
    config["recipes"]["demo"] |= SHORT
    (folder / "pipelines.yaml").write_text(yaml.safe_dump(config))
    return call("demo", "--ray-address", "local", cwd=folder, first=partial(stand_beside, scripts)), folder


def test_the_whole_road_is_commands_that_anyone_could_type(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ran, _ = done
    assert ran.returncode == 0, ran.stderr
    typed = [shlex.split(line[2:])[:2] for line in ran.stdout.splitlines() if line.startswith("$ ")]
    assert [" ".join(words) for words in typed] == [
        "toto-tokenize plan",
        "toto-tokenize run",
        "toto-shards verify",
        "toto-shards info",
        "toto-train plan",
        "toto-train pretrain",
        "toto-train loss-by-position",
        "toto-eval probe",
        "toto-eval compare",
        "toto-eval compare",
        "toto-train generate",
    ]


def test_it_prints_three_numbers_and_a_probe_table_with_controls(
    done: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    text = done[0].stdout
    for name in ("unigram", "copy", "model"):
        assert re.search(rf"^  {name} +\d\.\d{{3}}", text, re.MULTILINE), name
    rows = re.findall(r"^\d +.*%.*\(.*\)", text, re.MULTILINE)
    assert len(rows) >= 5 and "one-frame" in text and "chance 50.0 %" in text
    assert text.count("paired bootstrap") == 2


def test_the_page_tells_the_same_numbers(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    folder = done[1] / "runs" / "demo"
    html = (folder / "report.html").read_text()
    loss = json.loads((folder / "loss" / "loss_by_position.json").read_text())
    result = json.loads((folder / "probe" / "result.json").read_text())
    for number in (loss["model"], loss["copy"], loss["unigram"]):
        assert f"{number:.3f}" in html
    assert f"{100 * result['top1']:.1f}" in html
    assert "<script" not in html and "http://" not in html and "https://" not in html
    seen = browser.look(folder / "report.html", width=500)
    assert seen["wide"] <= 500
    assert "rope_theta" in html and "conv_window" not in html  # the card names what the model's architecture has
    for heading in ("What it predicts", "What its layers know", "How it goes on", "Model card"):
        assert heading in seen["text"]
    assert all(loaded for loaded, *_ in seen["pictures"])
