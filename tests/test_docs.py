"""What README and docs say is true: commands run, snippets run, links lead somewhere, tables are those of the code."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import MISSING, fields, replace
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import click
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from clips import ROOT, environment, write_clips

from toto.config import DatasetConfig, ModelConfig, RecipeConfig, TaskConfig
from toto.config import load as config_of
from toto.demo.learning import Places, commands
from toto.evaluate.results import PREDICTIONS_SCHEMA
from toto.shards.commit import Commit
from toto.shards.flags import Flag
from toto.shards.hashing import json_sha256
from toto.shards.manifest import MANIFEST_SCHEMA
from toto.shards.parquet import read_parquet
from toto.shards.protocol_views import VIEWS_SCHEMA
from toto.shards.recipe import Part, Recipe
from toto.shards.schema import SOURCES_SCHEMA, row_id, row_schema
from toto.tokenize.clip import CROPS, REASONS
from toto.tokenize.demo import WorldSpec, build
from toto.tokenize.job import content_settings
from toto.tokenize.sources.ego4d_sta_file import CATEGORIES, MOMENTS, OBJECTS
from toto.tokenize.sources.masks import MASKS
from toto.train.changes import FREE

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
STAGES = {"toto-tokenize": "tokenize", "toto-shards": "shards", "toto-train": "train", "toto-eval": "evaluate"}
SMALL = {"dim": 16, "heads": 2, "mlp_hidden": 16}  # the model that the docs' commands train here
SHORT = {"steps": 2, "validation_sequences": 2, "batch_tokens": 512}
COMMAND = re.compile(rf"(?:{'|'.join(STAGES)})\b(?!\[)[^\n`\"]*")
TINY = WorldSpec(
    classes=2,
    videos_per_class=5,
    frames=37,  # as the demo's: what the docs say of it must fit
    image_classes=2,
    images_per_class=20,
    davis_sequences=2,
    davis_frames=2,
    cater_videos=2,
    cater_frames=13,
    sta_videos=2,
    sta_frames=40,
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def group(script: str) -> click.Group:
    """The click group behind a console script."""
    return import_module(f"toto.{STAGES[script]}.cli").cli


def command_lines() -> list[str]:
    """Every line of words that begins with one of our scripts, in any page."""
    texts = (page.read_text().replace("-m toto.train ", "toto-train ") for page in PAGES)
    texts = (re.sub(r"\\\n\s*", " ", text) for text in texts)  # lines that go on
    return sorted({match.group().strip() for text in texts for match in COMMAND.finditer(text)})


def runnable(line: str) -> bool:
    """Whether a line speaks of the demo alone, on this machine."""
    words = line.split()
    of_demo = "demo" in words or any(word.startswith(("data/demo/", "runs/demo/")) for word in words)
    return len(words) > 2 and of_demo and not {"auto", "mine"} & {*words}


def snippets() -> Iterator[tuple[str, str]]:
    """(page, Python code) of every Python block, and of every `python -c` line."""
    for page in PAGES:
        text = page.read_text()
        yield from ((name(page), code) for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL))
        yield from ((name(page), code) for code in re.findall(r'python -c "(.*?)"\n', text))


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; code marks are dropped."""
    below = (ROOT / page).read_text().split(f"\n{heading}\n", 1)[1]
    lines = re.search(r"^\|.*?(?=\n\n|\Z)", below, re.DOTALL | re.MULTILINE)
    assert lines is not None, (page, heading)
    rows = [line.strip("| ").replace("`", "") for line in lines.group().splitlines()[2:]]
    return [[cell.strip() for cell in row.split("|")] for row in rows]


def first_column(page: str, heading: str) -> list[str]:
    return [word.strip() for row in table(page, heading) for word in row[0].split(",")]


def slugs(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the demo's commands were run, on a tiny world with a tiny model; the working directory."""
    folder = tmp_path_factory.mktemp("docs")
    build(folder / "data" / "demo-world", TINY)
    config = yaml.safe_load((ROOT / "pipelines.yaml").read_text())
    config["models"]["tiny"] |= SMALL
    config["recipes"]["demo"] |= SHORT
    (folder / "pipelines.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.delenv("TOTO_DATA", raising=False)
        run("toto-tokenize run demo")
        run("toto-train pretrain --size tiny --recipe demo --out runs/demo/model")
        shutil.copytree("runs/demo/model", "runs/tiny")
        run("toto-eval probe --ckpt runs/demo/model --data demo --poolings average,frames --out runs/demo/probe")
        yield folder


def run(line: str) -> None:
    """Runs a command line here, without Ray."""
    script, *words = shlex.split(line)
    if words[0] == "run" and "--ray-address" not in words:
        words += ["--ray-address", "local"]
    done = CliRunner().invoke(group(script), words, standalone_mode=False)
    assert done.exception is None and not done.return_value, (line, done.output, done.exception)


@pytest.mark.parametrize("line", [*filter(runnable, command_lines())])
def test_a_command_about_the_demo_runs(line: str, demo: Path) -> None:
    run(line)


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_parses(line: str) -> None:
    script, *words = shlex.split(line)
    if not words or words[0].startswith("-"):
        return
    for command in words[0].split("|"):
        known = group(script).commands
        assert command in known, line
        if words[1:]:
            known[command].make_context(command, words[1:])


def test_the_quickstart_has_the_demos_own_commands() -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text()
    for words in commands(Places.under(Path("runs/demo"), False), None, False).values():
        assert f"\n{shlex.join(words)}\n" in text


def test_the_quickstart_works_on_a_folder_of_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "docs" / "quickstart.md").read_text().split("\n## Your own videos\n")[1]
    settings, lines = (re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)[0] for kind in ("yaml", "sh"))
    for i, name in enumerate(("waving", "walking")):
        write_clips(tmp_path / "videos" / name, 5, frames=30, first=5 * i)
    (tmp_path / "pipelines.yaml").write_text(settings.replace("/path/to/folder", str(tmp_path / "videos")))
    small = {**{f"models.tiny.{k}": v for k, v in SMALL.items()}, **{f"recipes.demo.{k}": v for k, v in SHORT.items()}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOTO_DATA", raising=False)
    for line in lines.splitlines():
        sets = " ".join(f"--set {key}={value}" for key, value in small.items()) if "pretrain" in line else ""
        run(f"{line} {sets}")
    assert (tmp_path / "report.html").is_file() and (tmp_path / "step-1.html").is_file()


@pytest.mark.parametrize(("page", "code"), [*snippets()])
def test_python_in_the_docs_runs(page: str, code: str, demo: Path) -> None:
    if "runs/demo/exported" in code and not Path("runs/demo/exported").exists():  # this test alone
        run("toto-train export --ckpt runs/demo/model --out runs/demo/exported")
    if "import jax" in code:  # whose threads would be in this process for good, and in its way when it forks
        done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_and_shell_blocks_are_yaml_and_shell(page: Path) -> None:
    """Blocks that were wrapped like text are neither."""
    for kind, block in re.findall(r"^ *```(yaml|sh)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE):
        code = dedent(block)
        if kind == "yaml":
            assert isinstance(yaml.safe_load(code), dict), code
            continue
        checked = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
        assert checked.returncode == 0, (code, checked.stderr)
        for script in STAGES:  # one command a line
            assert not re.search(rf"^[^\n#|;&`]*\b{script} [^\n|;&#`]*\b{script} ", code, re.MULTILINE), code


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() and ROOT in (file, *file.parents), target
        assert not anchor or anchor in slugs(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_names_a_place_of_the_machine_it_was_written_on(page: Path) -> None:
    places = (f"{ROOT}/", f"{Path.home()}/", "/home/", "/Users/", "/tmp/")
    assert not [place for place in places if place in page.read_text()]


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(), re.MULTILINE)}
    assert named <= targets and {"demo", "test", "lint"} <= named


def test_every_module_has_its_paragraph_in_the_architecture() -> None:
    folders = ("tokenize", "shards", "train", "evaluate", "src/toto")
    modules = {name(path) for folder in folders for path in (ROOT / folder).rglob("*.py") if real(path)}
    text = (ROOT / "docs" / "architecture.md").read_text()
    described = re.findall(r"^\*\*`([^`]+)`\*\*: \S", text, re.MULTILINE)
    assert set(described) == modules
    assert len(described) == len(set(described))


def real(path: Path) -> bool:
    """Whether a file is not seen through a link of src/toto."""
    return path.resolve() == path and "__pycache__" not in path.parts


def test_every_dataset_and_tokenizer_is_in_its_table() -> None:
    config = config_of([str(ROOT / "pipelines.yaml")])
    assert set(first_column("README.md", "## Datasets")) == set(config.datasets)
    assert set(first_column("docs/tokenize.md", "### Tokenizers")) == set(config.tokenizers)


def test_every_setting_is_in_its_table_and_marked_when_fixed() -> None:
    rows = table("docs/tokenize.md", "## Settings")
    assert [row[0] for row in rows] == [field.name for field in fields(DatasetConfig) if field.name != "name"]
    used = DatasetConfig("x", "folder", "x", variant="480p", fold=1, flips=True, protocols=("single-1x1-16f4",))
    fixed = set(content_settings(replace(used, most_frames=8))) - {"filter"} | {"tokenizer"}
    assert {row[0] for row in rows if row[2] == "yes"} == fixed


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("docs/train.md", "## Models", ModelConfig),
        ("docs/train.md", "## Recipes", RecipeConfig),
        ("docs/evaluate.md", "## probe", TaskConfig),
    ],
    ids=["models", "recipes", "tasks"],
)
def test_every_key_of_models_recipes_and_tasks_is_in_its_table_with_its_default(
    page: str, heading: str, kind: type
) -> None:
    below = (ROOT / page).read_text().split(f"\n{heading}\n", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| [^|]*\|$", below.split("| key | default |")[1], re.MULTILINE)
    keys = [field for field in fields(kind) if field.name != "name"]
    assert [key for key, _ in rows[: len(keys)]] == [field.name for field in keys]
    for field, (_, said) in zip(keys, rows, strict=False):
        default = field.default
        if default is MISSING:
            assert said == "–", field.name
        elif isinstance(default, bool):
            assert said == str(default).lower(), field.name
        elif isinstance(default, int | float):
            assert float(said) == default, field.name
        elif default is not None:
            assert said == f"`{default}`", field.name


def test_options_of_train_and_eval_in_the_docs_exist() -> None:
    known = {
        option
        for script in ("toto-train", "toto-eval")
        for command in group(script).commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for page in ("docs/train.md", "docs/evaluate.md"):
        named = set(re.findall(r"`(--[a-z-]+)", (ROOT / page).read_text()))
        assert named <= known and len(named) > 5, named - known


def test_files_of_runs_and_results_hold_what_the_docs_say(demo: Path) -> None:
    assert set(first_column("docs/format.md", "## recipe.json")) == {"format", *(f.name for f in fields(Recipe))}
    meaning = {row[0]: row[1] for row in table("docs/format.md", "## recipe.json")}
    assert {field.name for field in fields(Part)} <= set(re.findall(r"\w+", meaning["parts"]))
    said = {row[0]: set(re.findall(r"\w+", row[1])) for row in table("docs/evaluate.md", "### Files")}
    result = json.loads((demo / "runs/demo/probe/result.json").read_text())
    assert set(result) - {"format", "task", "interval_kind", "chosen_on"} <= said["result.json"]
    assert set(PREDICTIONS_SCHEMA.names) <= said["predictions.parquet"]
    facts = json.loads((demo / "runs/demo/model/step-000000002/checkpoint.json").read_text())
    meaning = {row[0]: row[1] for row in table("docs/train.md", "## Checkpoints")}
    assert set(facts) - {"format"} <= set(re.findall(r"\w+", meaning["checkpoint.json"]))
    lines = [json.loads(line) for line in (demo / "runs/demo/model/metrics.jsonl").read_text().splitlines()]
    meaning = {row[0]: row[1] for row in table("docs/train.md", "### The run's folder")}
    assert {key for line in lines for key in line} <= set(re.findall(r"\w+", meaning["metrics.jsonl"]))


def test_what_may_change_when_a_run_goes_on_is_named() -> None:
    paragraph = (ROOT / "docs" / "train.md").read_text().split("What may differ: ")[1].split(", the device")[0]
    assert tuple(re.findall(r"`(\w+)`", paragraph)) == FREE


def test_reasons_crops_and_flags_are_those_of_the_code() -> None:
    assert set(first_column("docs/tokenize.md", "## Quarantine")) == {*REASONS, "too_short"}
    assert first_column("docs/tokenize.md", "### Crops") == list(CROPS)
    text = (ROOT / "docs" / "format.md").read_text()
    for flag in Flag:
        assert f"| {flag.value} | `{str(flag.name).lower()}` |" in text


@pytest.mark.parametrize(
    ("heading", "schema"),
    [
        ("## Manifest", MANIFEST_SCHEMA),
        ("## Per-source results", SOURCES_SCHEMA),
        ("## Rows", row_schema(pa.uint16().to_pandas_dtype(), {})),
        ("## Views", VIEWS_SCHEMA),
    ],
    ids=["manifest", "sources", "rows", "views"],
)
def test_columns_in_the_format_are_those_of_the_schema(heading: str, schema: pa.Schema) -> None:
    for row, field in zip(table("docs/format.md", heading), schema, strict=True):
        nullable = row[3] != "no" if heading == "## Rows" else row[1].endswith(", null")
        assert (row[0], row[1].removesuffix(", null"), nullable) == (field.name, spelled(field.type), field.nullable)


def test_columns_of_annotations_in_the_format_are_those_of_the_readers() -> None:
    said = {
        row[0]: re.findall(r"\w+", re.sub(r"\([^)]*\)", "", row[2]))
        for row in table("docs/format.md", "## Annotations")
    }
    known = {"masks": MASKS, "moments": MOMENTS, "objects": OBJECTS, "nouns, verbs": CATEGORIES}
    assert {name: said[name] for name in known} == {name: schema.names for name, schema in known.items()}


def spelled(kind: pa.DataType) -> str:
    """A type as the page writes it."""
    text = re.sub(r"(item|element): | \('.*'\)", "", str(kind))
    return {"double": "float64"}.get(text, text)


def test_keys_of_json_files_are_those_of_the_format(demo: Path) -> None:
    value = json.loads((demo / "data/demo/dct-512-64/dataset.json").read_text())
    assert set(first_column("docs/format.md", "## dataset.json")) == set(value)
    assert set(first_column("docs/format.md", "## Commits")) == {field.name for field in fields(Commit)} | {"sha256"}
    meaning = {row[0]: row[1] for row in table("docs/format.md", "## dataset.json")}
    for key in ("settings", "totals", "id_layout", "units", "made_by"):
        assert set(value[key]) <= set(re.findall(r"\w+", meaning[key])), key


def test_ids_of_rows_units_and_tokenizers_are_made_as_the_format_says(demo: Path) -> None:
    assert row_id("a/b.mp4", 1, 2).hex() in (ROOT / "docs" / "format.md").read_text()
    root = demo / "data/demo/dct-512-64"
    info = json.loads((root / "dataset.json").read_text())
    spec, layout = dict(info["tokenizer"]), dict(info["id_layout"])
    del layout["model_vocab"]
    claimed = spec.pop("id")
    assert claimed == json_sha256({**spec, "id_layout": layout, "preprocessing": 1})[:16]
    settings = {**info["settings"], "tokenizer": claimed}
    for path in (root / "commits").iterdir():
        unit = json.loads(path.read_text())
        results = read_parquet((root / unit["sources"]["path"]).read_bytes()).to_pylist()
        sources = [[source["key"], source["size"]] for source in results]
        identity = {"sources": sources, "settings": settings, "attempt": unit["attempt"]}
        assert unit["unit"] == json_sha256(identity)[:16]
