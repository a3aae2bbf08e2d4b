from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nnunetv2_voco.embedding import table
from nnunetv2_voco.embedding.cli import main
from nnunetv2_voco.encoder import build_network, plain_architecture
from tests.embedding.conftest import write_encoder
from tests.pretrain.tiny_run import run_tiny, write_ct

PLACES = "volume,i,j,k,organ\nphantom_000.nii.gz,20,20,20,liver\nphantom_001.nii.gz,22,20,10,spleen\n"


def test_whole_folder_becomes_one_row_per_volume(
    cts: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    main([str(checkpoint), str(cts), "-o", str(tmp_path / "e.csv"), "-np", "0"])
    output = capsys.readouterr().out
    assert "the encoder sees 1 channel(s), 8 × 8 × 8 mm (z, y, x), orientation LPS, CTNormalization" in output
    assert "skipped cts/labels.nii.gz" in output
    assert "wrote 3 rows of 20 features" in output
    found = pd.read_csv(tmp_path / "e.csv")
    assert found["volume"].tolist() == ["cts/phantom_000.nii.gz", "cts/phantom_001.nii.gz", "cts/phantom_002_dicom"]
    assert found.columns.tolist() == ["volume", "windows", *(f"f{i:04d}" for i in range(20))]
    assert np.isfinite(found.iloc[:, 2:].to_numpy()).all()
    assert str(cts.parent) not in (tmp_path / "e.csv").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["e.csv"]


def test_parquet_holds_the_same_numbers_and_says_what_they_are(cts: Path, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason='parquet needs pyarrow: pip install "nnunetv2_voco[embed]"')
    for name in ("e.csv", "e.parquet"):
        main([str(checkpoint), str(cts), "-o", str(tmp_path / name), "-np", "0", "--cache", str(tmp_path / "cache")])
    parquet = pd.read_parquet(tmp_path / "e.parquet")
    pd.testing.assert_frame_equal(parquet, pd.read_csv(tmp_path / "e.csv"), check_dtype=False, rtol=1e-5)
    assert parquet["f0000"].dtype == np.float32
    assert parquet.attrs["channels_per_stage"] == [4, 8, 8]
    assert parquet.attrs["window_vox"] == [16, 16, 16]


def test_places_keep_their_columns(cts: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(PLACES)
    for name, more in (("e.csv", []), ("u.csv", ["--untrained", "3"])):
        main([str(checkpoint), str(cts), "-o", str(tmp_path / name), "--points", str(tmp_path / "points.csv"), *more])
    found, untrained = (pd.read_csv(tmp_path / name) for name in ("e.csv", "u.csv"))
    assert found[["volume", "organ", "i"]].to_numpy().tolist() == [
        ["phantom_000.nii.gz", "liver", 20],
        ["phantom_001.nii.gz", "spleen", 22],
    ]
    assert found.shape == untrained.shape == (2, 5 + 20)
    assert (found["f0000"] != untrained["f0000"]).all()


def test_file_that_describes_nothing_needs_spacing_and_window(
    cts: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torch.save(build_network(plain_architecture((4, 8, 8)), num_input_channels=1).state_dict(), tmp_path / "bare.pt")
    command = [str(tmp_path / "bare.pt"), str(cts), "-o", str(tmp_path / "e.csv"), "-np", "0"]
    with pytest.raises(SystemExit, match="does not say its spacing; give --spacing"):
        main(command)
    with pytest.raises(SystemExit, match="does not say its normalisation; give --window"):
        main([*command, "--spacing", "8"])
    main([*command, "--spacing", "8", "--window=-175,250"])
    assert "percentile_99_5 250" in capsys.readouterr().out


def test_place_outside_names_volume_and_place(cts: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("volume,x_mm,y_mm,z_mm\nphantom_000.nii.gz,0,0,9999\n")
    with pytest.raises(SystemExit, match=r"cts/phantom_000.nii.gz: 1 place\(s\) lie outside of it.*9999.0\) mm"):
        main([str(checkpoint), str(cts), "-o", str(tmp_path / "e.csv"), "--points", str(tmp_path / "points.csv")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "e.txt"], "e.txt: expected a name that ends in .parquet or .csv"),
        (["-o", "nowhere/e.csv"], "its folder does not exist"),
        (["-o", "e.csv", "--step", "0"], r"expected a share of the window in \(0, 1\]"),
        (["-o", "e.csv", "--crop-size", "18"], "must be a multiple of the network's stride"),
        (["-o", "e.csv", "--points", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    cts: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main([str(checkpoint), str(cts), *options])
    assert not list(tmp_path.iterdir())


def test_folder_without_volumes_is_said(checkpoint: Path, tmp_path: Path) -> None:
    for more in ([], ["--points", "p.csv"]):
        with pytest.raises(SystemExit, match="no (usable )?volume was found"):
            main([str(checkpoint), str(tmp_path), "-o", str(tmp_path / "e.csv"), "-np", "0", *more])


def test_parquet_without_pyarrow_is_refused_before_any_work(
    cts: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install \"nnunetv2_voco\[embed\]\", or name a .csv file"):
        main(["nowhere.pth", str(cts), "-o", str(tmp_path / "e.parquet")])


def test_encoder_of_several_channels_is_refused(cts: Path, tmp_path: Path) -> None:
    network = build_network(plain_architecture((4, 8, 8)), num_input_channels=2)
    torch.save(network.state_dict(), tmp_path / "two.pt")
    with pytest.raises(SystemExit, match="takes 2 channels; raw volumes have one"):
        main([str(tmp_path / "two.pt"), str(cts), "-o", str(tmp_path / "e.csv")])


def test_other_modalities_are_embedded_with_their_own_statistics(cts: Path, tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "mr.pth", normalization_scheme="ZScoreNormalization", intensity_properties={})
    (tmp_path / "points.csv").write_text(PLACES)
    main([str(path), str(cts), "-o", str(tmp_path / "w.csv"), "-np", "0"])
    main([str(path), str(cts), "-o", str(tmp_path / "p.csv"), "--points", str(tmp_path / "points.csv")])
    assert len(pd.read_csv(tmp_path / "w.csv")) == 3
    assert np.isfinite(pd.read_csv(tmp_path / "p.csv").filter(like="f0").to_numpy()).all()


@pytest.mark.slow
def test_volumes_of_a_run_are_taken_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ct = write_ct(tmp_path / "ct")
    run_tiny(ct, tmp_path / "run")
    monkeypatch.setattr("nnunetv2_voco.pretrain.collect.read_volume", lambda *a, **k: pytest.fail("read again"))
    main(
        [
            str(tmp_path / "run" / "voco_encoder.pth"), str(ct), "-o", str(tmp_path / "e.csv"),
            "--cache", str(tmp_path / "run" / "cache"), "-np", "0",
        ]
    )  # fmt: skip
    assert len(pd.read_csv(tmp_path / "e.csv")) == 5
