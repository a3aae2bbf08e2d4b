"""The command line of `voco_preprocess`."""

import pytest

from nnunetv2_voco.pretrain import preprocess_cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["X"], "required"),
        (["-o", "C"], "no folder"),
        (["X", "-o", "C", "--num-parts", "3"], "go together"),
        (["X", "-o", "C", "--num-parts", "3", "--part-id", "3"], "0 to 2"),
        (["X", "-o", "C", "--merge"], "-o CACHE only"),
        (["-o", "C", "--merge", "--verify"], "two steps"),
        (["X", "-o", "C", "--forget"], "--verify"),
        (["X", "-o", "C", "-d", "3", "--spacing", "2"], "exclude"),
        (["X", "-o", "C"], "no such folder"),
        (["-o", "C", "--merge"], "no cache"),
        (["-o", "C", "--verify"], "no cache"),
    ],
)
def test_wrong_use_is_one_clear_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        preprocess_cli.main(words)
    assert stop.value.code not in (None, 0)
    message = str(stop.value.code) + capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []
