"""One training step: the model of a recipe, its loss, and whether it is sound in a reduced precision."""

import torch
from rich.console import Console
from torch import nn

from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.cpu_layers import use_cpu_layers
from nnunetv2_voco.pretrain.feed import Batch, Feed
from nnunetv2_voco.pretrain.labelled.model import RecipeLoss, SegmentationModel
from nnunetv2_voco.pretrain.model import StepLoss, VoCoModel
from nnunetv2_voco.pretrain.precision import check_precision, requested_precision
from nnunetv2_voco.pretrain.training_plan import TrainingPlan


def make_model(config: PretrainConfig, plan: TrainingPlan) -> VoCoModel | SegmentationModel:
    """Build the model of a run."""
    voco = make_voco(config, plan) if config.learns_from.contrast else None
    if plan.labelled is None:
        assert voco is not None
        return voco
    return SegmentationModel(
        plan.architecture,
        num_classes=plan.labelled.num_classes,
        annotated=[labelled.annotated for labelled in plan.labelled.sets],
        voco=voco,
        processes=distributed.world_size(),
    )


def make_voco(config: PretrainConfig, plan: TrainingPlan) -> VoCoModel:
    """Build the model that contrasts."""
    return VoCoModel(
        plan.architecture,
        random_crops=config.random_crops,
        projection_size=config.projection_size,
        crop_size=plan.crop_size if config.place_weight else None,
        decoder=config.trains_decoder,
    )


def quicken(model: nn.Module, config: PretrainConfig, precision: str, device: torch.device) -> None:
    """Take the layers that are quicker on a CPU in fp32, unless the encoder is compiled."""
    if device.type == "cpu" and precision == "fp32" and not config.compile:
        use_cpu_layers(model)


def step_loss(
    stepped: nn.Module,
    batch: Batch,
    pseudo: tuple[torch.Tensor, torch.Tensor] | None,
    config: PretrainConfig,
    step: int,
    inter_weight: float,
) -> StepLoss | RecipeLoss:
    """Compute the loss of one step with the model, or with its wrapper."""
    recipe, arguments = config.learns_from, loss_arguments(config, step, inter_weight)
    if not recipe.labelled:
        assert batch.unlabelled is not None
        return stepped(*batch.unlabelled, **arguments)
    return stepped(
        batch.unlabelled if recipe.contrast else None, batch.labelled, pseudo, voco_arguments=arguments,
        labelled_weight=config.labelled_weight, pseudo_weight=config.pseudo_weight, detached=recipe.detached,
        chunk=config.patches_at_once,
    )  # fmt: skip


def loss_arguments(config: PretrainConfig, step: int, inter_weight: float) -> dict:
    """Arguments of the model's forward pass beside the batch."""
    return {
        "dropout": (config.dropout, config.dropout_p),
        "dropout_seed": (config.seed, step) if config.gather else (config.seed, step, distributed.rank()),
        "intra_weight": config.intra_weight,
        "inter_weight": inter_weight,
        "reg_weight": config.reg_weight,
        "place_weight": config.place_weight,
        "decoder_weight": config.decoder_weight,
        "chunk": config.crops_at_once,
        "gathered": config.gather,
    }


def sound_precision(
    config: PretrainConfig, model: VoCoModel | SegmentationModel, feed: Feed, device: torch.device, console: Console
) -> str:
    """Return the requested autocast type if one step in it agrees with fp32 in every process, else fp32."""
    precision = requested_precision(config.precision, device)
    if precision == "fp32":
        return precision
    batch = feed.trial(device)
    fault = check_precision(
        model, lambda trial: step_loss(trial, batch, None, config, 0, config.inter_weight).total, precision, device
    )
    if not distributed.any_process(fault is not None, device):
        return precision
    if distributed.rank() == 0:
        console.print(f"{precision} is not sound here: {fault or 'another process found a fault'}. Training in fp32.")
    return "fp32"
