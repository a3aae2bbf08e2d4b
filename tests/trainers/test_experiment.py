import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.trainers.experiment import PLANS_KEY, Experiment, seed_everything
from nnunetv2_voco.transfer import encoder_tensors
from tests.nnunetv2_voco.planned_dataset import plans, write_plans
from tests.trainers.conftest import run_until

pytestmark = [
    # nnU-Net hands arrays of memory-mapped files to torch
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    # nnU-Net steps its schedule before the first epoch
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

CASES = [f"case_{index}" for index in range(5)]


@pytest.fixture
def experiment(
    preprocessed: Path, checkpoint: Path, start: Callable, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., nnUNetTrainer]:
    """Start a trainer with these values in the plans' block."""
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(checkpoint))

    def experiment(name: str = "nnUNetTrainerVoCo_5ep", *, c: bool = False, **block: Any) -> nnUNetTrainer:
        write_plans(preprocessed, plans() | {PLANS_KEY: block})
        return start(name, c=c)

    return experiment


def weights(trainer: nnUNetTrainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])


def test_plans_without_a_block_change_nothing() -> None:
    assert Experiment.from_plans({}) == Experiment() == Experiment.from_plans({PLANS_KEY: {}})
    assert Experiment().split((["a"], ["b"]), {"a", "b"}) == (["a"], ["b"])
    assert Experiment().split((["a"], ["a"]), {"a"}) == (["a"], ["a"])  # fold "all"
    assert Experiment().scaled(50, schedule_epochs=1000) == 50


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"epoch": 5}, "found epoch; expected a block of training_cases, "),
        ([], r"found \[\]; expected a block"),
        ({"epochs": 0}, "epochs 0 is not null or an integer of 1 or more"),
        ({"epochs": 2.5}, "epochs 2.5 is not"),
        ({"iterations_per_epoch": True}, "iterations_per_epoch True is not"),
        ({"initial_lr": "1e-3"}, "initial_lr '1e-3' is not"),
        ({"val_iterations_per_epoch": "3"}, "val_iterations_per_epoch '3' is not"),
        ({"seed": -1}, "seed -1 is not null or an integer of 0 or more"),
        ({"from_scratch": 1}, "from_scratch 1 is not true or false"),
        ({"initial_draw": -1}, "initial_draw -1 is not null or an integer of 0 or more"),
        ({"training_cases": []}, r"training_cases \[\] is not"),
        ({"training_cases": "case_0"}, "training_cases 'case_0' is not"),
        ({"validation_cases": [1]}, r"validation_cases \[1\] is not"),
        ({"validation_cases": ["a", "b", "a"]}, r"name 1 cases more than once \(a\)"),
    ],
)
def test_block_that_makes_no_sense_is_refused_by_name(block: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{PLANS_KEY}.*{message}"):
        Experiment.from_plans({PLANS_KEY: block})


def test_named_cases_replace_those_of_the_split_and_the_others_stay() -> None:
    stock, available = (["a", "b"], ["c"]), {"a", "b", "c", "d"}
    assert Experiment(training_cases=("d",)).split(stock, available) == (["d"], ["c"])
    assert Experiment(validation_cases=("d",)).split(stock, available) == (["a", "b"], ["d"])


def test_missing_and_overlapping_cases_are_errors_that_count_and_name_them() -> None:
    with pytest.raises(ValueError, match=r"2 of the training_cases are not among the 2 pre-processed cases \(x, y\)"):
        Experiment(training_cases=("x", "a", "y")).split(([], ["b"]), {"a", "b"})
    with pytest.raises(ValueError, match=r"1 cases are for training and for validation \(b\)"):
        Experiment(training_cases=("a", "b")).split(([], ["b"]), {"a", "b"})


@pytest.mark.parametrize(
    ("epochs", "phase", "expected"), [(None, 50, 50), (1000, 50, 50), (200, 50, 10), (30, 50, 2), (1, 50, 1)]
)
def test_phases_keep_their_share_of_a_schedule_and_last_an_epoch_at_least(
    epochs: int | None, phase: int, expected: int
) -> None:
    assert Experiment(epochs=epochs).scaled(phase, schedule_epochs=1000) == expected


def test_all_three_generators_are_functions_of_the_numbers() -> None:
    def draw(*numbers: int) -> tuple:
        seed_everything(*numbers)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first, again, other, longer = draw(3, 1), draw(3, 1), draw(3, 2), draw(3, 1, 0, 1)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert all(a != b for a, b in zip(first, longer, strict=True))


def test_trainer_obeys_cases_and_lengths(experiment: Callable) -> None:
    trainer = experiment(
        training_cases=CASES[3:], validation_cases=CASES[:1], epochs=2, iterations_per_epoch=4,
        val_iterations_per_epoch=3, initial_lr=0.003,
    )  # fmt: skip
    trainer.on_train_start()
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.initial_lr == 0.003
    assert trainer.dataloader_train.data_loader.indices == CASES[3:]
    assert trainer.dataloader_val.data_loader.indices == CASES[:1]
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (2, 4, 3)
    assert not (Path(trainer.preprocessed_dataset_folder_base) / "splits_final.json").exists()


def test_unknown_case_stops_the_training(experiment: Callable) -> None:
    with pytest.raises(ValueError, match=r"not among the 5 pre-processed cases \(case_9\)"):
        experiment(training_cases=["case_9"]).run_training()


def test_bad_block_stops_before_a_results_folder_is_made(experiment: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs 0"):
        experiment(epochs=0)
    assert not list((tmp_path / "nnUNet_results").rglob("fold_0"))


@pytest.mark.parametrize("family", ["", "_warmup", "_sawtooth", "_frozen", "_gentle"])
def test_twin_from_scratch_has_the_schedule_but_not_the_weights_and_leaves_no_record_of_others(
    family: str, experiment: Callable
) -> None:
    name = f"nnUNetTrainerVoCo{family}_5ep"
    ours = experiment(name, seed=1)
    ours.run_training()
    record = Path(ours.output_folder) / "voco_transfer.json"
    assert record.is_file()
    twin = experiment(name, seed=1, from_scratch=True)
    twin.run_training()
    assert ours.logger.get_value("lrs", step=None) == twin.logger.get_value("lrs", step=None)
    assert not record.exists()
    assert not torch.equal(weights(ours), weights(twin))
    saved = torch.load(Path(twin.output_folder) / "checkpoint_final.pth", weights_only=False)["nnunetv2_voco"]
    assert saved == {"trainer_name": name}


@pytest.mark.parametrize("name", ["nnUNetTrainerVoCo_warmup", "nnUNetTrainerVoCo_sawtooth"])
def test_shortened_schedule_has_the_shape_of_the_whole_one(name: str, experiment: Callable) -> None:
    def rates(**block: Any) -> list[float]:
        trainer = experiment(name, **block)
        trainer.initialize()
        result = []
        for epoch in range(trainer.num_epochs):
            trainer.lr_scheduler.step(epoch)
            result.append(trainer.lr_scheduler.get_last_lr()[-1])
        return result

    short, whole = rates(epochs=100), rates()
    assert len(short) == 100
    assert short.index(max(short)) == whole.index(max(whole)) // 10
    assert short[10::10] == pytest.approx(whole[100::100], rel=0.1)


def test_sawtooth_too_short_to_train_the_encoder_is_refused(experiment: Callable) -> None:
    with pytest.raises(ValueError, match="epochs 1: nnUNetTrainerVoCo_sawtooth needs at least 2"):
        experiment("nnUNetTrainerVoCo_sawtooth", epochs=1).on_train_start()


def test_seeded_training_is_repeated_bit_for_bit(experiment: Callable) -> None:
    results = []
    for seed in (1, 1, 2):
        trainer = experiment(seed=seed, epochs=2)
        torch.manual_seed(len(results))  # whatever happened before
        trainer.run_training()
        results.append(weights(trainer))
        shutil.rmtree(trainer.output_folder)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_seeded_training_that_is_killed_and_continued_equals_one_that_is_not(
    experiment: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = experiment(seed=4, epochs=3)
    whole.run_training()
    shutil.rmtree(whole.output_folder)
    run_until(experiment(seed=4, epochs=3), 2, monkeypatch)
    continued = experiment(seed=4, epochs=3, c=True)
    assert continued.current_epoch == 2
    continued.run_training()
    assert torch.equal(weights(continued), weights(whole))


def first_batches(trainer: nnUNetTrainer) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Start, and return two batches and the decoder's values."""
    trainer.on_train_start()
    encoder = encoder_tensors(trainer.network)
    rest = [p.detach().flatten() for n, p in trainer.network.named_parameters() if n not in encoder]
    trainer.on_epoch_start()
    return [next(trainer.dataloader_train)["data"] for _ in range(2)], torch.cat(rest)


def test_twins_start_from_the_same_decoder_and_see_the_same_batches(experiment: Callable) -> None:
    (ours, our_decoder), (twins, twin_decoder) = (
        first_batches(experiment(seed=1, from_scratch=scratch)) for scratch in (False, True)
    )
    assert torch.equal(our_decoder, twin_decoder)
    assert all(torch.equal(a, b) for a, b in zip(ours, twins, strict=True))
    assert not torch.equal(*ours)


def test_control_starts_from_other_values_and_sees_the_same_batches(experiment: Callable) -> None:
    (twins, twin_decoder), (controls, control_decoder), (_, again) = (
        first_batches(experiment(seed=1, from_scratch=True, initial_draw=draw)) for draw in (0, 1, 1)
    )
    assert not torch.equal(twin_decoder, control_decoder)
    assert torch.equal(control_decoder, again)
    assert all(torch.equal(a, b) for a, b in zip(twins, controls, strict=True))
