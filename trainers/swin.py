"""The authors' SwinUNETR models B, L and H in nnU-Net; needs MONAI (`pip install "nnunetv2_voco[swin]"`)."""

import copy

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunetv2_voco.report import TransferReport
from nnunetv2_voco.source import NoWeightsNamed, WeightSource
from nnunetv2_voco.swin import SwinForNNUNet, swin_for_plans, swin_patch_size
from nnunetv2_voco.swin_files import FEATURE_SIZES, HOME, PUBLISHED
from nnunetv2_voco.swin_weights import load_swin
from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.schedule import EpochLRScheduler, warmup_lr
from nnunetv2_voco.transfer import Pretrained, unwrap


class nnUNetTrainerVoCoSwin_B(nnUNetTrainerVoCo):
    """MONAI's SwinUNETR of feature size 48 (72 M parameters), from `VoCo_B_SSL_head.pt` or `VoComni_B.pt`.

    Data, batch size, augmentation and loss are nnU-Net's, without deep supervision. The planned patch is rounded to
    multiples of 32; the rounded one goes into the model's plans, so that prediction uses it, too. Models keep this
    trainer's name: predicting needs this package and MONAI.

    Schedule: AdamW, 3e-4, weight decay 1e-5 and 20 epochs of warm-up, as the authors fine-tune; the decay is nnU-Net's
    polynomial, theirs a cosine.

    Attributes:
        feature_size: MONAI's; decides the size of the network.
        warmup_epochs: Length of the warm-up.
    """

    peak_lr = 3e-4
    saved_trainer_name = None
    feature_size = FEATURE_SIZES["B"]
    warmup_epochs = 20

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net reads this signature
    ) -> None:
        planned = PlansManager(plans).get_configuration(configuration).patch_size
        patch = list(swin_patch_size(planned))
        plans = copy.deepcopy(plans)
        plans["configurations"][configuration]["patch_size"] = patch
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.weight_decay = 1e-5
        self.enable_deep_supervision = False
        rounded = "as planned" if list(planned) == patch else f"planned {list(planned)}, rounded to multiples of 32"
        self.print_to_log_file(f"SwinUNETR: patch size {patch}, {rounded}", add_timestamp=False)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """Build the network in place of the planned one; nnU-Net calls this for training and prediction."""
        return swin_for_plans(
            plans_manager,
            configuration_manager,
            num_input_channels=num_input_channels,
            num_output_channels=num_output_channels,
            feature_size=cls.feature_size,
        )

    def initialize(self) -> None:
        """Build everything, and say how intensities enter."""
        super().initialize()
        network = unwrap(self.network)
        assert isinstance(network, SwinForNNUNet)
        for remark in network.intensities.remarks:
            self.print_to_log_file(f"SwinUNETR: {remark}", add_timestamp=False)

    def configure_optimizers(self) -> tuple:
        """Make AdamW with the authors' settings."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        warmup = self.phase(self.warmup_epochs)

        def rates(epoch: int) -> list[float]:
            return [warmup_lr(epoch, peak=self.initial_lr, warmup=warmup, total=self.num_epochs)]

        return optimizer, EpochLRScheduler(optimizer, rates)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: the network has one output."""

    def load_initial_weights(self) -> None:
        """Fill encoder and, where the file has one, decoder.

        Raises:
            NoWeightsNamed: If no checkpoint is named; says where the authors' are.
        """
        try:
            super().load_initial_weights()
        except NoWeightsNamed as error:
            size = next((size for size, features in FEATURE_SIZES.items() if features == self.feature_size), "B")
            ssl, omni = PUBLISHED[size]
            raise NoWeightsNamed(
                f"{error}\nThis trainer takes the authors' {ssl} or {omni}, published at "
                f"https://huggingface.co/Luffy503/VoCo; CHECKPOINT may be {HOME}/{omni}. From scratch: "
                f"-tr nnUNetTrainerVoCoSwinScratch_{size}."
            ) from None

    def transfer(self, checkpoint: Pretrained, source: WeightSource) -> TransferReport:
        """Fill the network from the checkpoint; of the switches of `source` only `insist` matters."""
        return load_swin(self.network, checkpoint, minimum_share=0 if source.insist else self.minimum_share)


class nnUNetTrainerVoCoSwin_L(nnUNetTrainerVoCoSwin_B):
    """As `nnUNetTrainerVoCoSwin_B`, feature size 96 (290 M), from `VoCo_L_SSL_head.pt` or `VoComni_L.pt`."""

    feature_size = FEATURE_SIZES["L"]


class nnUNetTrainerVoCoSwin_H(nnUNetTrainerVoCoSwin_B):
    """As `nnUNetTrainerVoCoSwin_B`, feature size 192 (1.2 G), from `VoCo_H_SSL_head.pt` or `VoComni_H.pt`."""

    feature_size = FEATURE_SIZES["H"]
