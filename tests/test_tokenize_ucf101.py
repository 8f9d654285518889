"""UCF101 and HMDB51: official lists, with all that is odd about them, become folds, labels and groups."""

from pathlib import Path

import pytest
from listings import dataset, keys, refusal, tree

from toto.errors import UsageError
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE

LISTS = {
    "classInd.txt": "1 ApplyEyeMakeup\r\n37 HandstandPushups\r\n101 YoYo\r\n",
    "trainlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n"
    "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\r\nYoYo/v_YoYo_g25_c05.avi 101\r\n",
    "testlist01.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\r\n",
    "trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\r\nYoYo/v_YoYo_g25_c05.avi 101\r\n",
    "testlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\r\n",
}
VIDEOS = (
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
    "HandstandPushups/v_HandStandPushups_g08_c01.avi",
    "YoYo/v_YoYo_g25_c05.avi",
)


def ucf(root: Path, *videos: str) -> Path:
    tree(root, *(f"UCF-101/{video}" for video in videos or VIDEOS))
    tree(root / "ucfTrainTestlist", **LISTS)
    return root


def test_ucf_first_fold_is_train_then_test_with_labels_from_0(tmp_path: Path) -> None:
    listing = list_sources(dataset(ucf(tmp_path), "ucf101"))
    assert [(s.key, s.split, s.label, s.size > 0) for s in listing.sources] == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "train", 0, True),
        ("HandstandPushups/v_HandStandPushups_g08_c01", "train", 36, True),
        ("YoYo/v_YoYo_g25_c05", "train", 100, True),
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01", "test", 0, True),
    ]
    assert listing.annotations["labels"]["name"].to_pylist()[1:3] == ["HandstandPushups", "YoYo"]
    assert listing.annotations["classes"]["label"].to_pylist() == [0, 36, 100]
    assert listing.ignored == {".txt": 5}
    (warning,) = listing.warnings
    assert "no list for fold 3 (trainlist03.txt, testlist03.txt, looked for in" in warning and "null" in warning


def test_ucf_table_of_folds_has_all_three_and_the_group(tmp_path: Path) -> None:
    folds = list_sources(dataset(ucf(tmp_path), "ucf101")).annotations["folds"].to_pylist()
    assert folds[0] == {
        "source": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01", "fold1": "train", "fold2": "test", "fold3": None,
        "group": 8,
    }  # fmt: skip
    assert [row["group"] for row in folds] == [8, 8, 25, 1]


def test_ucf_other_fold_swaps_train_and_test_and_counts_what_it_does_not_use(tmp_path: Path) -> None:
    listing = list_sources(dataset(ucf(tmp_path), "ucf101", fold=2))
    assert [(s.key[-7:], s.split) for s in listing.sources] == [
        ("g01_c01", "train"), ("g25_c05", "train"), ("g08_c01", "test"),
    ]  # fmt: skip
    assert listing.ignored == {".txt": 5, "(not used in fold 2)": 1}
    only = list_sources(dataset(tmp_path, "ucf101", fold=2, split=("test",)))
    assert only.sources == listing.sources[2:] and "(in no official list)" not in only.ignored


@pytest.mark.parametrize(
    "moved",
    [
        {},
        {"v_HandStandPushups_g08_c01.avi": "handstandpushups/v_HandstandPushups_g08_c01.mp4"},
        {"v_HandStandPushups_g08_c01.avi": "v_HandStandPushups_g08_c01.webm"},
    ],
)
def test_ucf_clips_are_found_in_any_folder_case_and_format(tmp_path: Path, moved: dict[str, str]) -> None:
    videos = [moved.get(video.rsplit("/", 1)[1], video) for video in VIDEOS]
    listing = list_sources(dataset(ucf(tmp_path, *videos), "ucf101"))
    assert keys(listing)[1] == "HandstandPushups/v_HandStandPushups_g08_c01"
    assert all(source.size > 0 for source in listing.sources)


def test_ucf_listed_clip_that_is_not_there_is_missing_and_others_are_counted(tmp_path: Path) -> None:
    listing = list_sources(dataset(ucf(tmp_path, VIDEOS[0], "YoYo/v_YoYo_g99_c01.avi"), "ucf101"))
    assert [source.size for source in listing.sources[:3]] == [MISSING_SIZE] * 3
    assert listing.sources[0].uri == f"{tmp_path}/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
    assert listing.ignored == {".txt": 5, "(in no official list)": 1}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("classInd.txt", None, "no official lists (classInd.txt)\n"),
        ("testlist01.txt", None, "no official lists (testlist01.txt)\n"),
        ("classInd.txt", "ApplyEyeMakeup 1\n", "expected lines such as '1 ApplyEyeMakeup'"),
        ("trainlist01.txt", "ApplyEyeMakeup/v_A_g08_c01.avi 2\n", "line 1: 'ApplyEyeMakeup/v_A_g08_c01.avi 2'"),
        ("trainlist01.txt", "Surfing/v_Surfing_g08_c01.avi 1\n", "is no clip of a class"),
        ("trainlist01.txt", "YoYo/../../etc/passwd 101\n", "is no clip of a class"),
    ],
)
def test_ucf_lists_that_are_missing_or_disagree_are_refused(
    tmp_path: Path, name: str, text: str | None, problem: str
) -> None:
    root = ucf(tmp_path)
    path = root / "ucfTrainTestlist" / name
    path.unlink() if text is None else path.write_text(text)
    assert problem in refusal(dataset(root, "ucf101"))


def test_ucf_root_without_videos_says_where_people_get_them(tmp_path: Path) -> None:
    root = tree(tmp_path / "lists", **LISTS)
    message = refusal(dataset(tmp_path / "none", "ucf101", annotations=str(root), homepage="https://example.org"))
    assert "no such folder" in message and "get it from https://example.org" in message
    message = refusal(dataset(root, "ucf101", homepage="https://example.org"))
    assert "of 4 videos in the lists, none is here" in message
    assert "unknown split 'val'" in refusal(dataset(root, "ucf101", split=("val",)), UsageError)


def test_real_ucf_lists_have_9537_clips_to_train_on_and_3783_to_test(media: Path, tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "SoccerJuggling").symlink_to(media / "video_real" / "ucf101")
    listing = list_sources(dataset(tmp_path, "ucf101", annotations=str(media / "annotations" / "ucf101")))
    splits = [source.split for source in listing.sources]
    assert (splits.count("train"), splits.count("test")) == (9537, 3783)
    names = listing.annotations["classes"]["name"].to_pylist()
    assert len(names) == 101 and names == sorted(names, key=str.casefold)  # "HammerThrow" after "Hammering" is theirs
    (found,) = [source for source in listing.sources if source.size > 0]
    assert (found.key, names[found.label or 0]) == ("SoccerJuggling/v_SoccerJuggling_g23_c01", "SoccerJuggling")


# HMDB51

HMDB = {
    "brush_hair_test_split1.txt": "Brushing_[_NEW_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi 1 \n"
    "a_;-)_brush_hair_f_nm_np1_ri_med_3.avi 0 \n",
    "brush_hair_test_split2.txt": "Brushing_[_NEW_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi 2 \n"
    "a_;-)_brush_hair_f_nm_np1_ri_med_3.avi 1 \n",
    "wave_test_split1.txt": "RATRACE_&_wave_f_nm_np1_fr_goo_37.avi 2 \n\n",
    "wave_test_split2.txt": "RATRACE_&_wave_f_nm_np1_fr_goo_37.avi 0 \n",
}
CLIPS = (
    "brush_hair/Brushing_[_NEW_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi",
    "brush_hair/a_;-)_brush_hair_f_nm_np1_ri_med_3.avi",
    "wave/RATRACE_&_wave_f_nm_np1_fr_goo_37.avi",
)
TABLE = """video_id,label,split1,split2,split3
Brushing_[_NEW_]_UPDATED!!!!_brush_hair_h_cm_np1_fr_goo_0.avi,brush_hair_test,1,2,1
a_;-)_brush_hair_f_nm_np1_ri_med_3.avi,brush_hair_test,0,1,2
RATRACE_&_wave_f_nm_np1_fr_goo_37.avi,wave_test,2,0,0
"""


@pytest.mark.parametrize("form", ["a list for each class", "one table"])
def test_hmdb_lists_say_train_test_and_not_used(tmp_path: Path, form: str) -> None:
    tree(tmp_path, *CLIPS)
    if form == "one table":
        tree(tmp_path / "annotations", **{"hmdb51.csv": TABLE})
    else:
        tree(tmp_path / "testTrainMulti_7030_splits", **HMDB)
    listing = list_sources(dataset(tmp_path, "hmdb51"))
    assert [(s.key, s.split, s.label, s.size > 0) for s in listing.sources] == [
        (CLIPS[0][:-4], "train", 0, True),
        (CLIPS[2][:-4], "test", 1, True),
    ]
    assert listing.ignored["(not used in fold 1)"] == 1 and "(in no official list)" not in listing.ignored
    assert listing.annotations["classes"]["name"].to_pylist() == ["brush_hair", "wave"]
    folds = listing.annotations["folds"].to_pylist()
    assert [(row["fold1"], row["fold2"], row["group"]) for row in folds] == [
        ("train", "test", None), ("test", None, None),
    ]  # fmt: skip
    second = list_sources(dataset(tmp_path, "hmdb51", fold=2))
    assert [(s.key, s.split) for s in second.sources] == [(CLIPS[1][:-4], "train"), (CLIPS[0][:-4], "test")]


def test_hmdb_without_the_lists_of_a_fold_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, *CLIPS)
    tree(tmp_path, **HMDB)
    assert "<class>_test_split3.txt, or a CSV" in refusal(dataset(tmp_path, "hmdb51", fold=3))


def test_hmdb_without_the_list_of_one_class_keeps_every_label_and_says_so(tmp_path: Path) -> None:
    tree(tmp_path, *CLIPS, "climb/b_climb_f_cm_np1_ba_bad_0.avi", "mine/holiday.avi")
    lists = {name: text for name, text in HMDB.items() if name != "brush_hair_test_split1.txt"}
    splits = tree(tmp_path / "testTrainMulti_7030_splits", **lists)
    listing = list_sources(dataset(tmp_path, "hmdb51"))
    assert [(s.key, s.label) for s in listing.sources] == [(CLIPS[2][:-4], 2)]
    assert listing.annotations["classes"]["name"].to_pylist() == ["brush_hair", "climb", "wave"]
    first, others = listing.warnings
    assert "no list for fold 1 (brush_hair_test_split1.txt, climb_test_split1.txt, looked for in" in first
    assert "clips are left out" in first and "folds 2, 3 (climb_test_split2.txt, brush_hair_test_split3.txt" in others
    (splits / "brush_hair_test_split2.txt").unlink()
    assert list_sources(dataset(tmp_path, "hmdb51")).sources == listing.sources, "the folder alone tells as much"
    tree(tmp_path / "annotations", **{"hmdb51.csv": TABLE})
    for name in lists:
        (splits / name).unlink(missing_ok=True)
    (tmp_path / "climb" / "b_climb_f_cm_np1_ba_bad_0.avi").unlink()
    assert list_sources(dataset(tmp_path, "hmdb51")).warnings == ()


def test_hmdb_lines_that_climb_or_say_nothing_are_counted(tmp_path: Path) -> None:
    tree(tmp_path, *CLIPS)
    tree(tmp_path, **HMDB, **{"run_test_split1.txt": "../../etc/passwd 1\nlonely\nx.avi 7\n"})
    listing = list_sources(dataset(tmp_path, "hmdb51"))
    assert len(listing.sources) == 2 and listing.ignored["(line of a list without a clip)"] == 3


def test_real_hmdb_table_has_70_clips_to_train_on_and_30_to_test_for_each_class(media: Path, tmp_path: Path) -> None:
    real = media / "video_real" / "hmdb51"
    (tmp_path / "wave").symlink_to(real)
    for fold in (1, 2, 3):
        config = dataset(tmp_path, "hmdb51", fold=fold, annotations=str(media / "annotations" / "hmdb51"))
        listing = list_sources(config)
        counts = {(s.split, s.label): 0 for s in listing.sources}
        for source in listing.sources:
            counts[source.split, source.label] += 1
        assert counts == {(split, label): {"train": 70, "test": 30}[split] for split, label in counts}
        assert len(counts) == 102 and listing.ignored[f"(not used in fold {fold})"] == 6766 - 5100
    found = {s.key for s in listing.sources if s.size > 0}
    assert found <= {"wave/RATRACE_wave_f_nm_np1_fr_goo_37"}
