"""A run over some splits of a dataset that was planned whole: what it does not list is left, never called missing."""

from pathlib import Path

import pytest
from footage import numbered, write
from made import NO_CODES, config

from toto import Dataset
from toto.config import DatasetConfig
from toto.errors import UserError
from toto.shards.store import open_store
from toto.tokenize.job import Job, make_job
from toto.tokenize.plan import extend_plans
from toto.tokenize.retry import retry
from toto.tokenize.run import Options, Result, tokenize
from toto.tokenize.sources import list_sources

HEAD = "label,youtube_id,time_start,time_end,split\n"
OPTIONS = Options(engine="local", quiet=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Kinetics: two clips in train, two in val; their keys are no paths."""
    (tmp_path / "k" / "annotations").mkdir(parents=True)
    for split, letters in {"train": "AB", "val": "CD"}.items():
        lines = [f"riding,abcdefghij{letter},1,11,{split}\n" for letter in letters]
        (tmp_path / "k" / "annotations" / f"{split}.csv").write_text(HEAD + "".join(lines))
        (tmp_path / "k" / "videos" / split).mkdir(parents=True)
        for letter in letters:
            write(tmp_path / "k" / "videos" / split / f"abcdefghij{letter}_000001_000011.mov", numbered(4))
    return tmp_path / "k"


def asked(root: Path, *split: str) -> DatasetConfig:
    return config(root, layout="kinetics", split=split)


def job_of(root: Path) -> Job:
    return make_job(asked(root), NO_CODES, str(root.parent / "set"))


def run(root: Path, *split: str) -> Result:
    return tokenize(asked(root, *split), job_of(root), OPTIONS)


@pytest.fixture
def planned(root: Path) -> Path:
    """The root; its target has a plan of all splits and nothing else, as after a run that was killed."""
    job = job_of(root)
    extend_plans(open_store(job.out), job, list_sources(asked(root)), lambda sources: [1] * len(sources), None)
    return root


def rows(root: Path) -> list[str]:
    return sorted({row.source.split("_")[0] for row in Dataset(root.parent / "set").rows()})


def test_planned_units_of_other_splits_are_left_for_a_run_that_lists_them(
    planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(planned, "train")
    assert done.snapshot.value["units"] == {"committed": 1, "planned": 2} and done.snapshot.value["quarantine"] == {}
    assert "planned units left undone: 1, of splits that this run does not list (val); take" in capsys.readouterr().err
    assert rows(planned) == ["train/abcdefghijA", "train/abcdefghijB"]
    done = run(planned)
    assert done.snapshot.value["units"] == {"committed": 2, "planned": 2} and done.snapshot.value["quarantine"] == {}
    assert len(rows(planned)) == 4 and not capsys.readouterr().err


def test_a_source_that_its_split_no_longer_lists_is_missing(planned: Path) -> None:
    (planned / "annotations" / "val.csv").write_text(HEAD + "riding,abcdefghijC,1,11,val\n")
    done = run(planned, "val")
    assert done.snapshot.value["quarantine"] == {"missing": 1} and rows(planned) == ["val/abcdefghijC"]


def test_a_limit_leaves_nothing_undone_that_is_planned(planned: Path) -> None:
    done = tokenize(asked(planned), job_of(planned), Options(engine="local", quiet=True, limit=1))
    assert done.snapshot.value["units"] == {"committed": 2, "planned": 2} and done.snapshot.value["quarantine"] == {}


def test_retry_over_one_split_leaves_the_sources_of_others_as_they_are(root: Path) -> None:
    hidden = {split: next((root / "videos" / split).iterdir()) for split in ("train", "val")}
    for path in hidden.values():
        path.rename(path.with_suffix(".hidden"))
    assert run(root).snapshot.value["quarantine"] == {"missing": 2}
    for path in hidden.values():
        path.with_suffix(".hidden").rename(path)
    done = retry(asked(root, "train"), job_of(root), OPTIONS, None)
    assert done.snapshot.value["quarantine"] == {"missing": 1} and done.snapshot.value["units"]["planned"] == 3
    with pytest.raises(UserError, match="of 1 quarantined source, none is of these splits; take"):
        retry(asked(root, "train"), job_of(root), OPTIONS, None)
    done = retry(asked(root, "val"), job_of(root), OPTIONS, None)
    assert done.snapshot.value["quarantine"] == {} and len(rows(root)) == 4
