"""pipelines.yaml: what is read, what is refused; a mistake gets one or two lines that say what to do."""

from pathlib import Path

import pytest
import yaml
from clips import ROOT

from toto.config import DatasetConfig, TokenizerConfig, expand, load
from toto.config_entries import LAYOUTS
from toto.errors import UsageError, UserError
from toto.strict_yaml import MAX_FILE_BYTES, load_bytes

BASE = """
datasets:
  clips: {layout: folder, root: /videos, stride: 8}
  views: {layout: folder, root: /videos, views: 4}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a configuration file in an empty current folder; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text, name="mine.yaml"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return write_file


def refusal(call, *args, **kwargs):
    """The message of the UsageError that a call ends in: one or two lines of readable length."""
    with pytest.raises(UsageError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert 1 <= len(message.splitlines()) <= 2 and len(message) < 600
    return message


# What is found, and where


def test_packaged_file_is_the_one_in_the_repository(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = load()
    monkeypatch.chdir(root)
    assert packaged == load()
    assert set(packaged.datasets) >= {"demo", "folder", "k400", "k600", "k700", "imagenet1k"}


def test_file_in_current_folder_comes_before_the_packaged_one(write):
    write(BASE, "pipelines.yaml")
    assert set(load().datasets) == {"clips", "views"}


def test_relative_places_are_absolute_for_workers_in_other_folders(write, tmp_path):
    pipelines = load([write("datasets: {x: {layout: kinetics, root: videos/../v, annotations: lists}}")])
    found = pipelines.dataset("x")
    assert (found.root, found.annotations) == (f"{tmp_path}/videos/../v", f"{tmp_path}/lists")
    away = load([write("datasets: {x: {layout: folder, root: 's3://bucket/v'}}")])
    assert away.dataset("x").root == "s3://bucket/v"


def test_config_option_replaces_the_file_in_the_current_folder(write):
    write("datasets: {other: {layout: folder, root: /o}}", "pipelines.yaml")
    assert set(load([write(BASE)]).datasets) == {"clips", "views"}


def test_second_config_is_laid_over_the_first(write):
    first = write(BASE)
    second = write("datasets: {clips: {resolution: 256}, new: {layout: folder, root: /n}}", "over.yaml")
    pipelines = load([first, second])
    assert set(pipelines.datasets) == {"clips", "views", "new"}
    clips = pipelines.dataset("clips")
    assert (clips.resolution, clips.stride, clips.root) == (256, 8, "/videos")


def test_file_with_datasets_only_gets_the_packaged_tokenizers(write):
    assert load([write(BASE)]).tokenizer("dct").vocab_size == 8192


def test_labelled_sets_and_folder_never_drop_a_short_video(root):
    datasets = load([str(root / "pipelines.yaml")]).datasets
    assert {datasets[name].min_frames for name in ("demo", "folder", "k400", "k600", "k700")} == {1}


def test_demo_gives_eight_frames_of_an_eight_by_eight_grid_a_window():
    demo = load().dataset("demo")
    assert demo.resolution // 8 == 8
    assert load().tokenizer(demo.tokenizer).vocab_size == 512


@pytest.mark.parametrize(("written", "meant"), [("on", "on"), ("off", "off"), ("'on'", "on"), ("auto", "auto")])
def test_on_and_off_are_words_though_yaml_reads_them_as_true_and_false(write, written, meant):
    path = write(f"tokenizers: {{t: {{backend: dvae, compile: {written}}}}}")
    assert load([path]).tokenizer("t").compile == meant
    assert load([path], [f"tokenizers.t.compile={written}"]).tokenizer("t").compile == meant


def test_layouts_are_those_that_have_readers():
    from toto.tokenize.sources import READERS

    assert tuple(READERS) == LAYOUTS


# Defaults and what follows from a value


def test_every_fourth_frame_is_the_default():
    entry = DatasetConfig(name="x", layout="folder", root="/x")
    assert (entry.stride, entry.fps, entry.uniform) == (4, None, None)
    assert DatasetConfig(name="x", layout="folder", root="/x", fps=7.5).stride is None


def test_three_crops_are_three_views(write):
    pipelines = load([write("datasets: {x: {layout: folder, root: /x, crop: three}}")])
    assert pipelines.dataset("x").views == 3


@pytest.mark.parametrize(("crop", "views"), [("three", 1), ("center", 2), ("full", 3), ("squash", 4)])
def test_views_that_a_crop_does_not_have_are_refused(write, crop, views):
    path = write(f"datasets: {{x: {{layout: folder, root: /x, crop: {crop}, views: {views}}}}}")
    assert f"datasets.x.views: {views}, but crop {crop} has" in refusal(load, [path])


def test_one_split_may_be_written_without_a_list(write):
    path = write("datasets: {a: {layout: kinetics, root: /a, split: val}}")
    assert load([path]).dataset("a").split == ("val",)


def test_mixture_keeps_weights_and_leaves_out_zeros(write):
    path = write(BASE + "mixtures: {both: {clips: 60, views: 40}, one: {clips: 1, views: 0}}")
    found = {name: mixture.weights for name, mixture in load([path]).mixtures.items()}
    assert found == {"both": {"clips": 60, "views": 40}, "one": {"clips": 1}}


@pytest.mark.parametrize(
    ("mixture", "problem"),
    [
        ("{clip: 1}", "did you mean 'clips'"),
        ("{clips: 0}", "weights sum to 0"),
        ("{clips: 9000, views: 9000}", "weights sum to 18000"),
        ("{clips: 0.5}", "0.5 is not a whole number"),
    ],
)
def test_wrong_mixture_is_refused(write, mixture, problem):
    assert problem in refusal(load, [write(BASE + f"mixtures: {{m: {mixture}}}")])


# Mistakes


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("strid: 8", ["datasets.x.strid", "did you mean 'stride'", "known: layout, root, annotations"]),
        ("stride: eight", ["datasets.x.stride: eight", "whole number from 1 to 65535"]),
        ("stride: true", ["datasets.x.stride: true"]),
        ("stride: 0", ["datasets.x.stride: 0"]),
        ("fps: .nan", ["datasets.x.fps: .nan", "a number from 0.001 to 1000"]),
        ("crop: centre", ["datasets.x.crop: centre", "random, center, three, full, squash"]),
        ("resolution: 100", ["datasets.x.resolution: 100", "a multiple of 8"]),
        ("run_frames: whole", ["datasets.x.run_frames: whole", "or all"]),
        ("max_bad_fraction: 2", ["datasets.x.max_bad_fraction: 2", "from 0 to 1"]),
        ("split: [train, 3]", ["datasets.x.split: [train, 3]", "list of names"]),
        ("root: ''", ["datasets.x.root: ''"]),
        ("views: null", ["datasets.x.views: nothing is not"]),
        ("tokenizer: dtc", ["datasets.x.tokenizer", "did you mean 'dct'", "known: dct"]),
        ("stride: 4, fps: 7.5", ["datasets.x: stride and fps exclude each other"]),
        ("layout: folders", ["datasets.x.layout: folders", "one of: folder, webdataset, howto100m, kinetics"]),
        ("layout: kinetics, labels: folders", ["datasets.x.labels", "folder only"]),
        ("layout: kinetics, held_out: 0.1", ["datasets.x.held_out", "folder and webdataset only"]),
    ],
)
def test_mistake_in_an_entry_names_path_value_and_what_is_allowed(write, entry, expected):
    values = {"layout": "folder", "root": "/x"}
    given = ", ".join([entry, *(f"{k}: {v}" for k, v in values.items() if f"{k}:" not in entry)])
    message = refusal(load, [write(f"datasets: {{x: {{{given}}}}}")])
    assert message.startswith("mine.yaml: ")
    assert [part for part in expected if part not in message] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dataset: {}", "unknown section 'dataset'; did you mean 'datasets'"),
        ("datasets: [a, b]", "datasets: [a, b] is not a mapping"),
        ("datasets: {x: 3}", "datasets.x: 3 is not a mapping"),
        ("just text", "just text is not a mapping"),
        ("datasets: {x: {root: /x}}", "datasets.x.layout: missing"),
        ("datasets: {../x: {layout: folder, root: /x}}", "names are letters, digits"),
        ("tokenizers: {t: {backend: dct, precision: fp16}}", "tokenizers.t.precision: fp16 is not one of"),
        ("tokenizers: {t: {backend: mine, options: {size: [1]}}}", "tokenizers.t.options"),
    ],
)
def test_mistake_in_the_outline_of_a_file(write, text, expected):
    assert expected in refusal(load, [write(text)])


def test_missing_file_is_named(write):
    write("")
    assert "nowhere.yaml: no such configuration file" in refusal(load, ["nowhere.yaml"])


def test_unknown_dataset_names_known_ones_and_the_nearest():
    message = refusal(load().dataset, "k4000")
    assert "unknown dataset 'k4000'; did you mean 'k400'" in message
    assert "known: demo, folder, webdataset, k400" in message
    assert "unknown tokenizer 'dcd'; did you mean 'dct'" in refusal(load().tokenizer, "dcd")


# Overrides


def test_override_sets_one_key_of_one_entry():
    pipelines = load(overrides=["datasets.k400.resolution=256", "datasets.k400.split=[train, val]"])
    assert pipelines.datasets["k400"].resolution == 256
    assert pipelines.datasets["k400"].split == ("train", "val")
    assert pipelines.datasets["k600"].resolution == 128


def test_override_of_a_sampling_rule_replaces_the_other_rules():
    entry = load(overrides=["datasets.k400.fps=7.5"]).datasets["k400"]
    assert (entry.stride, entry.fps, entry.uniform) == (None, 7.5, None)
    entry = load(overrides=["datasets.k400.fps=7.5", "datasets.k400.uniform=32"]).datasets["k400"]
    assert (entry.stride, entry.fps, entry.uniform) == (None, None, 32)


def test_override_of_a_path_is_taken_as_it_stands(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for text, root in (("2024", "2024"), ("~", "/home/me"), ("yes", "yes"), ("a: b", "a: b")):
        assert load(overrides=[f"datasets.folder.root={text}"]).dataset("folder").root == str(Path.cwd() / root)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("datasets.k400.strid=8", "datasets.k400.strid: unknown key 'strid'; did you mean 'stride'"),
        ("datasets.k40.stride=8", "unknown entry of datasets 'k40'; did you mean 'k400'"),
        ("dataset.k400.stride=8", "unknown section 'dataset'"),
        ("datasets.k400.stride=abc", "abc is not a whole number"),
        ("datasets.k400.stride", "write section.entry.key=value"),
        ("stride=8", "write section.entry.key=value"),
        ("datasets.k400.stride=[", "line 1"),
        ("datasets.k400.root=", "datasets.k400.root: nothing"),
    ],
)
def test_mistake_in_an_override_is_told_with_the_override(override, expected):
    message = refusal(load, overrides=[override])
    assert message.startswith(f"--set {override}: ") and expected in message


# Variables in paths


def test_variables_defaults_and_home_are_expanded(monkeypatch):
    monkeypatch.setenv("VIDEOS", "/mnt/videos")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("ELSEWHERE", raising=False)
    assert expand("${VIDEOS}/new", "w") == "/mnt/videos/new"
    assert expand("${ELSEWHERE:-~/data}/x", "w") == "/home/me/data/x"
    assert expand("s3://bucket/$VIDEOS", "w") == "s3://bucket/$VIDEOS"


def test_variable_that_is_not_set_disturbs_only_the_entry_that_needs_it(monkeypatch):
    monkeypatch.delenv("VIDEOS", raising=False)
    pipelines = load()
    assert pipelines.dataset("demo").root.endswith("demo-world")
    assert "variable VIDEOS is not set" in refusal(pipelines.dataset, "folder")
    monkeypatch.setenv("VIDEOS", "")
    assert "variable VIDEOS is not set" in refusal(pipelines.dataset, "folder")


def test_variable_of_a_public_dataset_says_where_people_get_it(monkeypatch):
    monkeypatch.delenv("K400", raising=False)
    assert "github.com/cvdfoundation" in refusal(load().dataset, "k400")


@pytest.mark.parametrize("path", ["${", "${A:-${B}}", "${1}", "a/${B-c}"])
def test_malformed_variable_is_refused(path):
    assert "write ${NAME} or ${NAME:-default}" in refusal(expand, path, "datasets.x.root")


# Hostile files

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("datasets:\n  x: {}\n  x: {}\n", "line 3, column 3: key 'x' appears twice", id="twice"),
        pytest.param(BOMB, "anchors and aliases", id="alias bomb"),
        pytest.param("a: &a\n  b: *a\n", "anchors and aliases", id="recursive alias"),
        pytest.param("datasets: {<<: {x: 1}}", "'<<' is no key", id="merge key"),
        pytest.param("datasets: {400: {}}", "'400' is no key", id="number as key"),
        pytest.param("? [a]\n: b", "a list or mapping is no key", id="list as key"),
        pytest.param("a: !!python/object/apply:os.system ['true']", "tags (!…) are not taken", id="code"),
        pytest.param("[" * 100_000, "nested more than 16 deep", id="deep flow"),
        pytest.param("{a: " * 1000, "nested more than 16 deep", id="deep mapping"),
        pytest.param("- " * 100_000, "nested more than 16 deep", id="deep block"),
        pytest.param("x" * (MAX_FILE_BYTES + 1), "larger than 256 KiB", id="huge"),
        pytest.param("a: " + "1" + ":59" * 60_000, "more than 2048 characters", id="base 60 number"),
        pytest.param("datasets: {x: {seed: 0x" + "f" * 2000 + "}}", "is not a whole", id="large hexadecimal"),
        pytest.param("a: 2024-99-99", "cannot be read", id="impossible date"),
        pytest.param("a: b\n--- \nc: d\n", "but found another document", id="two documents"),
        pytest.param("a: [1, 2", "line 1", id="unfinished"),
        pytest.param(b"\xff\xfe\x00a", "not YAML text", id="binary"),
        pytest.param(b"a: \x00", "not YAML text", id="zero byte"),
    ],
)
def test_hostile_yaml_ends_in_one_line_that_names_the_file(write, text, expected):
    message = refusal(load, [write(text)])
    assert message.startswith("mine.yaml: ") and expected in message


def test_folder_and_device_are_no_configuration(tmp_path):
    assert "no such configuration file" in refusal(load, [str(tmp_path)])
    if Path("/dev/zero").exists():
        assert "no such configuration file" in refusal(load, ["/dev/zero"])


def test_plain_yaml_reads_as_pyyaml_reads_it(root):
    data = (root / "pipelines.yaml").read_bytes()
    assert load_bytes(data, "pipelines.yaml") == yaml.safe_load(data)


def test_usage_error_is_a_user_error_with_exit_code_two():
    assert issubclass(UsageError, UserError) and (UserError.exit_code, UsageError.exit_code) == (1, 2)


def test_a_hash_behind_a_uri_pins_that_uri_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SDVAE", raising=False)
    default = load((str(ROOT / "pipelines.yaml"),)).tokenizer("sdvae")
    assert default.weights_sha256 is not None and default.weights_sha256.startswith("a1d993488569e928")
    assert default.weights is not None and default.weights.endswith("/diffusion_pytorch_model.safetensors")
    monkeypatch.setenv("SDVAE", "/x/vae.safetensors")
    own = load((str(ROOT / "pipelines.yaml"),)).tokenizer("sdvae")
    assert (own.weights, own.weights_sha256) == ("/x/vae.safetensors", None)


def test_hashes_of_weights_take_variables_and_must_be_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(**keys: str) -> TokenizerConfig:
        path = tmp_path / "pipelines.yaml"
        path.write_text(yaml.safe_dump({"tokenizers": {"mine": {"backend": "dvae", **keys}}}))
        return load((str(path),)).tokenizer("mine")

    digest = "AB" * 32
    monkeypatch.setenv("DIGEST", digest)
    assert entry(weights="/x", weights_sha256="${DIGEST}").weights_sha256 == digest.lower()
    assert entry(decoder=f"/x#sha256={digest}", decoder_sha256=digest).decoder == "/x"
    for keys, said in (
        ({"weights_sha256": "00"}, r"tokenizers\.mine\.weights_sha256: '00' is no sha256; it has 64 hex"),
        ({"decoder": "/x#sha256=xyz"}, r"tokenizers\.mine\.decoder: 'xyz' is no sha256"),
        ({"weights": f"/x#sha256={digest}", "weights_sha256": "0" * 64}, "another hash stands behind the URI"),
    ):
        with pytest.raises(UsageError, match=said):
            entry(**keys)
