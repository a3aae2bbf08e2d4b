import json
from pathlib import Path

import pytest

from nnunetv2_voco.encoder import build_encoder, plain_architecture
from nnunetv2_voco.evaluation.runs import UnusableRun, read_run
from nnunetv2_voco.evaluation.scaling import find_series, fit_all, main
from tests.evaluation.run_folder import write_run


def test_a_run_says_how_long_on_how_much_how_large_and_how_well(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", loss=lambda step: 100 / step, steps=800, volumes=7, features=(4, 8, 8)))
    expected = sum(p.numel() for p in build_encoder(plain_architecture((4, 8, 8))).parameters())
    assert (run.steps, run.volumes, run.parameters) == (800, 7, expected)
    assert [measurement.step for measurement in run.curve] == list(range(100, 801, 100))
    assert run.curve[-1].loss == 0.125
    assert run.curve[-1].accuracy == 1 - 0.125 / 2


def test_folders_that_are_no_finished_runs_say_why(tmp_path: Path) -> None:
    with pytest.raises(UnusableRun, match=r"config.json: no such file; expected a folder that voco_pretrain"):
        read_run(tmp_path)
    folder = write_run(tmp_path / "cut", loss=lambda step: 1.0)
    lines = (folder / "log.jsonl").read_text().splitlines()[:-1]
    (folder / "log.jsonl").write_text("\n".join(lines))
    with pytest.raises(UnusableRun, match="has not finished: validated at step 700 of 800"):
        read_run(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UnusableRun, match="lack 'grid'"):
        read_run(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UnusableRun, match="not JSON"):
        read_run(folder)


def test_law_over_volumes_is_found_among_runs_that_differ_in_nothing_else(tmp_path: Path) -> None:
    sizes = (8, 16, 32, 64, 128)
    runs = [
        read_run(write_run(tmp_path / f"v{n}", loss=lambda _, n=n: 0.4 + n**-0.5, volumes=n, validations=2))
        for n in sizes
    ]
    runs.append(read_run(write_run(tmp_path / "other", loss=lambda _: 5.0, volumes=256, spacing_mm=1.5)))
    runs.append(read_run(write_run(tmp_path / "longer", loss=lambda _: 5.0, volumes=256, steps=900)))
    series = find_series(runs, "volumes")
    assert series.x.tolist() == list(sizes)
    fits, gaps = fit_all(runs)
    loss = next(fit for fit in fits if (fit.series.axis, fit.measure) == ("volumes", "loss"))
    assert loss.law.exponent[0] == pytest.approx(0.5, rel=0.03)
    assert loss.law.floor[0] == pytest.approx(0.4, abs=0.02)
    error = next(fit for fit in fits if (fit.series.axis, fit.measure) == ("volumes", "error"))
    assert error.law.floor[0] == pytest.approx(0.2, abs=0.01)
    assert error.to_json()["gain_of_doubling"] == pytest.approx((128**-0.5 - 256**-0.5) / 2, rel=0.05)
    assert "at most 1 different values among runs of equal steps, volumes and settings" in gaps["parameters"]


def test_parameters_are_an_axis_of_their_own(tmp_path: Path) -> None:
    runs = []
    for width in (4, 8, 16, 32):
        parameters = sum(p.numel() for p in build_encoder(plain_architecture((width, width))).parameters())
        folder = write_run(
            tmp_path / str(width), loss=lambda _, p=parameters: 0.3 + p**-0.3, features=(width,) * 2, validations=2
        )
        runs.append(read_run(folder))
    fits, _ = fit_all(runs)
    assert [fit.series.axis for fit in fits] == ["parameters", "parameters"]
    assert fits[0].law.exponent[0] == pytest.approx(0.3, rel=0.05)


def test_steps_are_taken_from_runs_of_different_length_or_else_along_one(tmp_path: Path) -> None:
    along = [read_run(write_run(tmp_path / "one", loss=lambda step: 0.2 + step**-0.7))]
    series = find_series(along, "steps")
    assert len(series.x) == 8
    assert series.block == 2
    assert "learning rate falls along a run" in series.remarks[0]
    assert fit_all(along)[0][0].law.exponent[0] == pytest.approx(0.7, rel=0.03)
    several = [
        read_run(write_run(tmp_path / f"s{n}", loss=lambda step: 1.0, steps=n, validations=2))
        for n in (100, 200, 400, 800)
    ]
    series = find_series(several, "steps")
    assert series.x.tolist() == [100, 200, 400, 800]
    assert series.block == 1


def test_command_writes_figures_numbers_and_words(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [
        write_run(tmp_path / f"v{n}", loss=lambda step, n=n: 0.3 + n**-0.5 + step**-0.8, volumes=n)
        for n in (8, 16, 32, 64)
    ]
    main([*map(str, folders), str(tmp_path / "nothing"), "-o", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "left out" in output
    assert "from 64 to 128 it would fall by" in output
    assert "parameters: not fitted" in output
    written = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert {fit["axis"] for fit in written["fits"]} == {"steps", "volumes"}
    assert set(written["not_fitted"]) == {"parameters"}
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 10_000


def test_command_without_a_single_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="voco_scaling: none of the folders holds a finished run"):
        main([str(tmp_path)])


@pytest.mark.slow
def test_runs_of_voco_pretrain_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from tests.pretrain.tiny_run import run_tiny, write_ct

    ct = write_ct(tmp_path / "ct")
    for name, features in (("narrow", (4, 8, 8)), ("wide", (8, 16, 16))):
        run_tiny(ct, tmp_path / name, features=features, val_every=2)
    capsys.readouterr()
    main([str(tmp_path / "narrow"), str(tmp_path / "wide"), "-o", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "4 validations along the run" in output
    assert "parameters: not fitted: at most 2 different values" in output
    assert "left out" not in output
