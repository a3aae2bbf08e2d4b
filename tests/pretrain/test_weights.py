import time

import pytest

from nnunetv2_voco.pretrain.weights import OTHERS, group_volumes, read_weights

NAMES = {
    "a": "CTS/abdomen/liver_1.nii.gz",
    "b": "CTS/abdomen/chest/odd.nii.gz",
    "c": "CTS/chest/lidc_1.nii.gz",
    "d": "CTS/head.nrrd",
}


def groups(text: str, names=NAMES) -> dict[str, tuple[str, float]]:
    grouping = group_volumes(read_weights(text), names)
    return {key: (grouping.groups[i], grouping.weights[i]) for key, i in grouping.group_of.items()}


def table(tmp_path, text: str) -> str:
    path = tmp_path / "weights.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_first_name_that_fits_counts_and_the_rest_have_weight_one():
    assert groups("abdomen=8,chest=2") == {
        "a": ("abdomen", 8), "b": ("abdomen", 8), "c": ("chest", 2), "d": (OTHERS, 1)
    }  # fmt: skip
    assert groups("chest=2,abdomen=8")["b"] == ("chest", 2)


@pytest.mark.parametrize(
    ("name", "fitting"),
    [
        ("CTS", "abcd"),
        ("CTS/chest", "c"),
        ("CTS/abdomen/", "ab"),
        ("chest", "bc"),
        ("lidc_*", "c"),
        ("*.nrrd", "d"),
        ("CTS/*/*_1.nii.gz", "ac"),
        ("CTS/head.nrrd", "d"),
        ("head.nrrd", "d"),
        ("*domen", "ab"),
        ("liver_[0-9].nii.gz", "a"),
    ],
)
def test_names_fit_folders_files_leading_parts_and_patterns(name, fitting):
    fits = {key for key, (group, _) in groups(f"{name}=3").items() if group != OTHERS}
    assert fits == set(fitting)


def test_table_with_and_without_header_and_groups(tmp_path):
    plain = groups(table(tmp_path, "abdomen,8\nchest,0.5\n"))
    assert plain == {"a": ("weight 8", 8), "b": ("weight 8", 8), "c": ("weight 0.5", 0.5), "d": (OTHERS, 1)}
    named = groups(table(tmp_path, "\ufeffname,weight,group\nabdomen,8,belly\n\n*.nrrd,8,belly\n"))
    assert named == {"a": ("belly", 8), "b": ("belly", 8), "c": (OTHERS, 1), "d": ("belly", 8)}


def test_exact_name_goes_before_what_stands_above_it(tmp_path):
    assert groups(table(tmp_path, "CTS,2\nCTS/head.nrrd,5\n"))["d"][1] == 5


def test_rows_of_a_table_that_fit_nothing_are_told(tmp_path):
    grouping = group_volumes(read_weights(table(tmp_path, "abdomen,8\npelvis,8\n")), NAMES)
    assert grouping.unused == ("pelvis",)
    with pytest.raises(ValueError, match="fits none of the 4 usable volumes"):
        group_volumes(read_weights(table(tmp_path, "pelvis,8\n")), NAMES)


def test_label_tells_tables_of_other_content_apart_and_holds_no_path(tmp_path):
    first = read_weights(table(tmp_path, "abdomen,8\n")).label
    second = read_weights(table(tmp_path, "abdomen,9\n")).label
    assert first != second
    assert first.startswith("weights.csv (")
    assert str(tmp_path) not in first
    assert read_weights("abdomen=8").label == "abdomen=8"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abdomne=8", ("abdomne", "4 usable", "CTS/abdomen/chest/odd.nii.gz")),
        ("abdomen=x", ("abdomen", "'x'", "a number")),
        ("abdomen=", ("abdomen", "a number")),
        ("=3", ("a name",)),
        ("abdomen=-1", ("-1", "from 0 on")),
        ("abdomen=inf", ("inf", "from 0 on")),
        ("abdomen=nan", ("nan", "from 0 on")),
        ("abdomen=1,abdomen=2", ("abdomen", "twice")),
        ("others=2", ("others",)),
        ("missing.csv", ("missing.csv", "table that exists")),
    ],
)
def test_what_cannot_be_is_refused_with_the_place(text, words):
    with pytest.raises(ValueError, match="weights") as refusal:
        groups(text)
    assert all(word in str(refusal.value) for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,weight\nabdomen\n", ("line 2", "name,weight expected")),
        ("abdomen,8\nchest,much\n", ("line 2", "much")),
        ("abdomen,8,g\nchest,2,g\n", ("group 'g'", "8", "2")),
        ("", ("no weights",)),
    ],
)
def test_table_that_cannot_be_is_refused_with_the_line(tmp_path, text, words):
    with pytest.raises(ValueError, match="weights.csv") as refusal:
        groups(table(tmp_path, text))
    assert all(word in str(refusal.value) for word in words)


def test_table_with_a_line_for_each_of_160_000_volumes_is_read_in_seconds(tmp_path):
    names = {str(i): f"CTS/site_{i % 40}/patient_{i}/ct.nii.gz" for i in range(160_000)}
    lines = "".join(f"{name},{i % 3}\n" for i, name in enumerate(names.values()))
    started = time.process_time()
    grouping = group_volumes(read_weights(table(tmp_path, lines + "site_*,9\n")), names)
    assert time.process_time() - started < 10
    assert grouping.groups == ("weight 0", "weight 1", "weight 2")
    assert [grouping.weights[grouping.group_of[str(i)]] for i in range(6)] == [0, 1, 2, 0, 1, 2]
    assert grouping.unused == ("site_*",)
