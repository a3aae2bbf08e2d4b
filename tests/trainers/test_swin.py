"""The SwinUNETR trainers with a network of feature size 12: same code, other width."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_voco.registration import discovery_folder
from nnunetv2_voco.source import NoWeightsNamed
from nnunetv2_voco.swin import MonaiMissing
from nnunetv2_voco.trainers.swin import nnUNetTrainerVoCoSwin_B
from tests.nnunetv2_voco.planned_dataset import NAME, plans, write_plans
from tests.nnunetv2_voco.swin_file import write_swin_file

pytestmark = [
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of MONAI's imports
]

CT = {"0": {"mean": 83.0, "std": 131.0, "percentile_00_5": -950.0, "percentile_99_5": 812.0}}
TINY = """
from nnunetv2_voco.trainers.swin_lengths import nnUNetTrainerVoCoSwin_B_5ep
from nnunetv2_voco.trainers.swin_scratch import nnUNetTrainerVoCoSwinScratch_B_5ep

class nnUNetTrainerVoCoSwin_tiny_5ep(nnUNetTrainerVoCoSwin_B_5ep):
    feature_size = 12

class nnUNetTrainerVoCoSwinScratch_tiny_5ep(nnUNetTrainerVoCoSwinScratch_B_5ep):
    feature_size = 12
"""


@pytest.fixture
def start(preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nnUNetTrainer]:
    """As nnUNetv2_train does, but with one step an epoch of one patch."""
    content = plans() | {"foreground_intensity_properties_per_channel": CT}
    content["configurations"]["3d_fullres"]["batch_size"] = 1
    write_plans(preprocessed, content)
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / "tiny_swin.py").write_text(TINY)
    monkeypatch.setenv("nnUNet_extTrainer", f"{folder}:{discovery_folder()}")

    def start(
        name: str = "nnUNetTrainerVoCoSwin_tiny_5ep", *, c: bool = False, configuration: str = "3d_fullres"
    ) -> nnUNetTrainer:
        torch.manual_seed(0)
        trainer = get_trainer_from_args(NAME, configuration, 0, name, "nnUNetPlans", c, torch.device("cpu"))
        trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 1
        monkeypatch.setattr(trainer.logger, "plot_progress_png", lambda folder: None)  # takes longer than an epoch
        maybe_load_checkpoint(trainer, c, False)
        return trainer

    return start


@pytest.fixture
def monai() -> None:
    pytest.importorskip("monai", reason="MONAI is not installed (pip install 'nnunetv2_voco[swin]')")


def test_patch_is_rounded_in_the_models_plans_and_the_log_says_so(start: Callable) -> None:
    trainer = start()
    assert trainer.configuration_manager.patch_size == [64, 32, 32]
    assert trainer.my_init_kwargs["plans"]["configurations"]["3d_fullres"]["patch_size"] == [64, 32, 32]
    assert plans()["configurations"]["3d_fullres"]["patch_size"] == [16, 16, 16]
    log = Path(trainer.log_file).read_text()
    assert "patch size [64, 32, 32], planned [16, 16, 16], rounded to multiples of 32" in log


def test_second_stage_of_a_cascade_gets_a_patch_of_its_own(start: Callable) -> None:
    trainer = start(configuration="3d_cascade_fullres")
    assert trainer.configuration_manager.patch_size == [64, 32, 32]
    assert trainer.plans_manager.get_configuration("3d_fullres").patch_size == [16, 16, 16]


def test_2d_configuration_is_refused(start: Callable) -> None:
    with pytest.raises(ValueError, match="take a 3D configuration"):
        start(configuration="2d")


def test_without_monai_the_trainers_are_found_and_building_one_says_what_to_install(
    start: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "monai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "monai", None)
    trainer = start("nnUNetTrainerVoCoSwin_L")
    monkeypatch.setattr(trainer, "get_dataloaders", lambda: pytest.fail("data was read"))
    monkeypatch.setenv("nnUNet_voco_checkpoint", __file__)
    monkeypatch.setattr(trainer, "load_initial_weights", trainer.initialize)
    with pytest.raises(MonaiMissing, match=r'pip install "nnunetv2_voco\[swin\]"'):
        trainer.run_training()


@pytest.mark.parametrize(("size", "files"), [("B", "VoCo_B_SSL_head.pt or VoComni_B.pt"), ("H", "VoComni_H.pt")])
def test_without_weights_the_error_says_where_the_authors_are(start: Callable, size: str, files: str) -> None:
    trainer = start(f"nnUNetTrainerVoCoSwin_{size}")
    with pytest.raises(NoWeightsNamed, match=f"(.|\n)*{files}(.|\n)*huggingface.co/Luffy503/VoCo"):
        trainer.load_initial_weights()


def test_optimiser_is_the_authors_with_warm_up(start: Callable, monai: None) -> None:
    trainer = start("nnUNetTrainerVoCoSwinScratch_tiny_5ep")
    trainer.initialize()
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 1e-5
    rates = []
    for epoch in range(5):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert max(rates) == rates[0] == rates[1] == 3e-4
    assert rates[1:] == sorted(rates[1:], reverse=True)


@pytest.mark.slow
def test_five_epochs_from_the_authors_weights_lead_to_a_model_that_predicts(
    start: Callable, monai: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = write_swin_file(tmp_path / "VoCo_B_SSL_head.pt", ssl=True)
    monkeypatch.setenv("nnUNet_voco_checkpoint", str(tmp_path / "VoCo_B_SSL_head.pt"))
    trainer = start()
    trainer.load_initial_weights()
    loaded = trainer.network.network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in published.items())
    trainer.run_training()
    log = Path(trainer.log_file).read_text()
    assert "(100.0%) come from the checkpoint" in log
    assert "-175…250 HU become 0…1, exactly" in log
    trained = trainer.network.network.state_dict()
    assert not torch.equal(trained["swinViT.patch_embed.proj.weight"], published["swinViT.patch_embed.proj.weight"])

    (tmp_path / "VoCo_B_SSL_head.pt").unlink()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    assert torch.load(final, weights_only=False)["trainer_name"] == "nnUNetTrainerVoCoSwin_tiny_5ep"
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 300, (70, 32, 30)).astype(np.float32))
    (tmp_path / "images").mkdir()
    sitk.WriteImage(image, str(tmp_path / "images" / "case_0000.nii.gz"))
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(Path(trainer.output_folder).parent), (0,))
    assert predictor.configuration_manager.patch_size == [64, 32, 32]
    data = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        assert torch.equal(predictor.network.eval()(data), trainer.network.eval()(data))
    (tmp_path / "out").mkdir()
    predictor.predict_from_files_sequential(str(tmp_path / "images"), str(tmp_path / "out"))
    segmentation = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nii.gz")))
    assert segmentation.shape == (70, 32, 30)
    assert set(np.unique(segmentation)) <= {0, 1, 2}

    final.unlink()  # killed after its last epoch
    (Path(trainer.output_folder) / "checkpoint_best.pth").rename(Path(trainer.output_folder) / "checkpoint_latest.pth")
    continued = start(c=True)
    assert 0 < continued.current_epoch <= 5


def test_all_sizes_differ_in_nothing_but_their_width() -> None:
    from nnunetv2_voco.discovery import voco_trainers

    sizes = {"B": 48, "L": 96, "H": 192}
    for name in voco_trainers.__all__:
        trainer = getattr(voco_trainers, name)
        if issubclass(trainer, nnUNetTrainerVoCoSwin_B):
            assert trainer.feature_size == sizes[name.split("_")[1]]
            assert trainer.saved_trainer_name is None
            assert trainer.peak_lr == 3e-4
