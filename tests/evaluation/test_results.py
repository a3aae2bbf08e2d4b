import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_voco.evaluation.benchmark.cli import main
from nnunetv2_voco.evaluation.benchmark.collect import collect, read_result, write_tables
from nnunetv2_voco.evaluation.benchmark.comparisons import compare, group_results
from nnunetv2_voco.evaluation.benchmark.run import read_manifest
from nnunetv2_voco.evaluation.benchmark.table import markdown, sentence
from tests.evaluation.synthetic_results import CASES, finish, make_benchmark, make_run


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_tables_hold_every_number_of_nnunets_files(tmp_path: Path) -> None:
    runs = make_benchmark(tmp_path)
    write_tables(tmp_path, runs, collect(tmp_path, runs))
    rows = rows_of(tmp_path / "results.csv")
    assert len(rows) == len(runs) * len(CASES) * 2
    found = {(row["run"], row["case"], row["class"]): row for row in rows}
    for run in runs:
        for entry in json.loads(run.summary(tmp_path).read_text())["metric_per_case"]:
            case = Path(entry["prediction_file"]).name.removesuffix(".nii.gz")
            for key, label in (("1", "organ"), ("(1, 2)", "whole")):
                row = found[run.id, case, label]
                assert float(row["dice"]) == entry["metrics"][key]["Dice"]
                assert (row["seed"], row["training_cases"]) == (str(run.seed), str(run.training_cases))
                assert (row["hd95_mm"] == "") == (key != "1")
    curves = rows_of(tmp_path / "curves.csv")
    assert len(curves) == len(runs) * 20
    assert [row["epoch"] for row in curves[:20]] == [str(epoch) for epoch in range(1, 21)]
    assert {row["finished"] for row in rows_of(tmp_path / "runs.csv")} == {"1"}


def test_run_that_is_not_finished_is_listed_and_not_counted(tmp_path: Path) -> None:
    runs = make_benchmark(tmp_path)
    runs[0].summary(tmp_path).unlink()
    results = collect(tmp_path, runs)
    write_tables(tmp_path, runs, results)
    assert len(results) == len(runs) - 1
    assert [row["finished"] for row in rows_of(tmp_path / "runs.csv")].count("0") == 1
    small = next(c for c in compare(group_results(results)) if c.group.setting.training_cases == 2)
    assert small.pairs == 2


def test_comparison_is_that_of_numpy_on_the_csv(tmp_path: Path) -> None:
    runs = make_benchmark(tmp_path)
    results = collect(tmp_path, runs)
    write_tables(tmp_path, runs, results)
    rows = rows_of(tmp_path / "results.csv")
    for comparison in compare(group_results(results)):
        count = str(comparison.group.setting.training_cases)
        means = [
            np.mean([float(r["dice"]) for r in rows if r["training_cases"] == count and r["initialisation"] == name])
            for name in ("scratch", "ct")
        ]
        assert comparison.dice.value == pytest.approx(means[1] - means[0]) == pytest.approx(0.1)
        assert comparison.error_reduction.value == pytest.approx(1 - (1 - means[1]) / (1 - means[0]))
        assert (comparison.dice.low, comparison.dice.high) == pytest.approx((0.1, 0.1))
        assert (comparison.pairs, comparison.cases) == (3, 4)
        assert comparison.hd95_mm.value == pytest.approx(-1)
        assert comparison.nsd.value == pytest.approx(0.1)


def test_folds_of_unequal_size_are_one_setting(tmp_path: Path) -> None:
    for fold, count in ((0, 208), (1, 209)):
        for name, dice in (("scratch", 0.5), ("ct", 0.6)):
            run = make_run(fold=fold, training_cases=count, labels="100%", initialisation=name)
            finish(tmp_path, run, lambda case, key, dice=dice: dice, [0.5])
    runs = [
        make_run(fold=f, training_cases=208 + f, labels="100%", initialisation=n)
        for f in (0, 1)
        for n in ("scratch", "ct")
    ]
    (comparison,) = compare(group_results(collect(tmp_path, runs)))
    assert (comparison.pairs, comparison.cases, comparison.group.setting.training_cases) == (2, 8, 208)


def test_surface_distances_at_another_tolerance_are_not_taken_for_this_one(tmp_path: Path) -> None:
    run = make_run()
    finish(tmp_path, run, lambda case, key: 0.5, [0.5], {"a": {"1": {"hd95_mm": 1.0, "nsd": 0.9}}})
    assert {
        score.nsd for score in read_result(tmp_path, run).scores if score.case == "a" and score.label == "organ"
    } == {0.9}
    other = dataclasses.replace(run, nsd_tolerance_mm=3.0)
    assert all(np.isnan(score.nsd) for score in read_result(tmp_path, other).scores)


def test_speed_is_in_epochs_of_the_twin(tmp_path: Path) -> None:
    speed = compare(group_results(collect(tmp_path, make_benchmark(tmp_path))))[0].speed
    # smoothed over two epochs, the twin ends at 0.7 * 19.5 / 20; twice as fast, that is passed in epoch 11
    assert (speed.epochs, speed.twin, speed.other, speed.never) == (20, 20, 11, 0)


def test_class_that_is_neither_there_nor_predicted_counts_for_nothing(tmp_path: Path) -> None:
    run = make_run()
    finish(tmp_path, run, lambda case, key: None if case == "a" and key == "1" else 0.5, [0.1])
    result = read_result(tmp_path, run)
    assert sum(np.isnan(score.dice) for score in result.scores) == 1
    assert group_results([result])[0].dice.value == pytest.approx(0.5)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    runs = make_benchmark(tmp_path)
    runs[0].curve(tmp_path).write_text("{")
    with pytest.raises(ValueError, match=r"curve.json: cannot be read .*remove the run's folder"):
        collect(tmp_path, runs)


def report(tmp_path: Path, capsys: pytest.CaptureFixture, **settings: float) -> tuple[str, str]:
    make_benchmark(tmp_path / "mine_benchmark", **settings)
    (tmp_path / "mine.yaml").write_text("datasets: [999]")
    main([str(tmp_path / "mine.yaml"), "--collect"])
    return capsys.readouterr().out, (tmp_path / "mine_benchmark" / "report.html").read_text()


def test_report_is_one_file_that_says_what_the_numbers_say(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    said, page = report(tmp_path, capsys)
    sentence = "ct, 2 labelled cases: seems to help. Dice +0.100 [+0.100, +0.100], error reduction 23 % ["
    assert sentence in said
    assert sentence in page
    assert "reached after 11 of 20 epochs (scratch itself: 20). 3 pairs of runs, 4 validation cases." in said
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing is fetched
    assert page.count("<svg") == 4  # label efficiency, differences, convergence with 2 and with 20 cases
    table = (tmp_path / "mine_benchmark" / "table.md").read_text()
    assert "| 20 | stock | ct | 3 | 0.670 | +0.100 [+0.100, +0.100] |" in table
    assert "| 2 | stock | ct | 2.00 | −1.00 [−1.00, −1.00] | 0.600 | +0.100 [+0.100, +0.100] |" in table


def test_verdict_is_plain_with_five_pairs_alone(tmp_path: Path) -> None:
    def said(seeds: int) -> str:
        out = tmp_path / str(seeds)
        runs = [make_run(initialisation=name, seed=seed) for seed in range(seeds) for name in ("scratch", "ct")]
        for run in runs:
            more = 0.1 * (run.initialisation == "ct")
            finish(out, run, lambda case, key, run=run, more=more: 0.5 + more + 0.02 * run.seed, [0.5])
        return sentence(compare(group_results(collect(out, runs)))[0])

    assert ": one pair of runs cannot tell this from chance. " in said(1)
    assert "seems to help" in said(2)
    assert "seems to help" in said(4)
    assert ": helps. " in said(5)


def test_control_is_named_as_such_and_explained(tmp_path: Path) -> None:
    runs = make_benchmark(tmp_path)
    groups = group_results(collect(tmp_path, runs))
    assert "control" not in markdown("mine", groups, compare(groups))
    controls = [dataclasses.replace(run, initial_draw=1) if run.initialisation == "ct" else run for run in runs]
    groups = group_results(collect(tmp_path, controls))
    assert "A control is another start from scratch" in markdown("mine", groups, compare(groups))
    said = sentence(compare(groups)[0])
    assert said.startswith(
        "ct, 2 labelled cases: another start from scratch, whose difference is chance. Dice +0.100 ["
    )


def test_mean_of_all_starts_from_scratch_takes_the_twins_place(tmp_path: Path) -> None:
    values = {"scratch": (0.3, 0.5), "c1": (0.5, 0.4), "c2": (0.4, 0.3), "ct": (0.7, 0.5)}
    rises = {"scratch": 1.0, "c1": 0.5, "c2": 0.75, "ct": 3.0}
    runs = [
        make_run(initialisation=name, seed=seed, initial_draw={"c1": 1, "c2": 2}.get(name, 0))
        for seed in (0, 1)
        for name in values
    ]
    for run in runs:
        dice, rise = values[run.initialisation][run.seed], rises[run.initialisation]
        finish(tmp_path, run, lambda case, key, dice=dice: dice, [rise * epoch / 20 for epoch in range(1, 21)])
    groups = group_results(collect(tmp_path, runs))
    found = {comparison.group.initialisation: comparison for comparison in compare(groups)}
    assert found["ct"].dice.value == pytest.approx(np.mean([0.7 - 0.4, 0.5 - 0.4]))
    assert found["ct"].error_reduction.value == pytest.approx(1 - 0.4 / 0.6)
    assert found["ct"].speed.other == 6  # mean curve 0.75 * epoch / 20, of epochs 19 and 20 0.73; 3 * (e - 0.5) / 20
    assert found["c1"].dice.value == pytest.approx(np.mean([0.5 - 0.35, 0.4 - 0.4]))  # against the other two
    assert found["c1"].pairs == 2
    without = [run for run in runs if (run.initialisation, run.seed) != ("c1", 1)]
    part = {c.group.initialisation: c for c in compare(group_results(collect(tmp_path, without)))}
    assert part["ct"].dice.value == pytest.approx(np.mean([0.7 - 0.4, 0.5 - 0.4]))  # of those that are finished


def test_harm_is_reported_as_harm(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    said, page = report(tmp_path, capsys, gain=-0.1)
    assert "ct, 2 labelled cases: seems to harm. Dice −0.100 [−0.100, −0.100], error reduction −23 %" in said
    assert "helps" not in page


def test_nothing_gained_is_reported_as_chance(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    said, _ = report(tmp_path, capsys, gain=0.0)
    assert "changes nothing that can be told from chance" in said


def test_collecting_needs_neither_the_data_set_nor_the_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    report(tmp_path, capsys)
    runs, machine = read_manifest(tmp_path / "mine_benchmark")
    assert (len(runs), machine.device) == (12, "cpu")


def test_nothing_to_collect_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("datasets: [999]")
    with pytest.raises(SystemExit, match=r"^voco_benchmark: .*runs.json: no such file; run voco_benchmark without"):
        main([str(tmp_path / "mine.yaml"), "--collect"])
