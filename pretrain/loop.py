"""Training, top to bottom. The file to read first."""

import contextlib
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_voco.pretrain import distributed
from nnunetv2_voco.pretrain.allocator import has_room_to_keep, keep_freed_memory
from nnunetv2_voco.pretrain.cache import VolumeCache
from nnunetv2_voco.pretrain.chunked import refuse_batch_statistics
from nnunetv2_voco.pretrain.config import PretrainConfig
from nnunetv2_voco.pretrain.export import export_encoder
from nnunetv2_voco.pretrain.feed import Feed
from nnunetv2_voco.pretrain.figures import draw_samples
from nnunetv2_voco.pretrain.labelled.figures import draw_segmentations
from nnunetv2_voco.pretrain.labelled.model import FrozenLabeller, SegmentationModel
from nnunetv2_voco.pretrain.labelled.validation import describe_dice, mean_dice
from nnunetv2_voco.pretrain.log import RunLog
from nnunetv2_voco.pretrain.messages import describe, final_verdict, progress_note
from nnunetv2_voco.pretrain.model import VoCoModel, update_momentum
from nnunetv2_voco.pretrain.precision import autocast_context
from nnunetv2_voco.pretrain.progress_figure import draw_progress
from nnunetv2_voco.pretrain.schedule import inter_volume_weight, learning_rate
from nnunetv2_voco.pretrain.state import Progress, load_state, save_state
from nnunetv2_voco.pretrain.step import make_model, quicken, sound_precision, step_loss
from nnunetv2_voco.pretrain.stop_on_signal import StopOnSignal
from nnunetv2_voco.pretrain.training_plan import TrainingPlan
from nnunetv2_voco.pretrain.verdict import gain_is_significant

MOST_SKIPPED_IN_A_ROW = 10
"""Steps with a non-finite loss or gradient after which a run stops."""


class TrainingStopped(RuntimeError):
    """A run cannot go on; the text says why and what to do."""


def train(config: PretrainConfig, plan: TrainingPlan, cache: VolumeCache, out: Path, *, console: Console) -> str | None:
    """Train, or go on training, and leave `voco_encoder.pth` and the run's pictures in `out`.

    Args:
        config: Settings.
        plan: What to train on.
        cache: Where the volumes lie.
        out: The run's folder; if it holds a state, training goes on from there.
        console: Where a person reads.

    Returns:
        The verdict in words, or None if a signal ended the run early with its state saved.

    Raises:
        TrainingStopped: If the loss or gradient is not finite for several steps in a row.
    """
    device = torch.device(resolve_device(config.device))
    keep_memory = config.keep_memory if device.type == "cpu" else False
    if keep_memory:
        keep_freed_memory()
    rank, world_size = distributed.rank(), distributed.world_size()
    first_process = rank == 0

    # data
    try:
        feed = Feed(config, plan, cache)
    except KeyError as error:
        raise TrainingStopped(
            f"volume {error.args[0]} is no longer in {cache.folder}; run again to pre-process it"
        ) from None

    # model, optimiser, state
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = make_model(config, plan).to(device)
    voco = model if isinstance(model, VoCoModel) else model.voco
    if config.channels_last:
        for part in (model.encoder, getattr(model, "decoder", model.encoder)):
            part.to(memory_format=torch.channels_last_3d)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, amsgrad=True)
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    if config.crops_at_once is not None:
        refuse_batch_statistics(model.encoder)
    progress, state_file = Progress(processes=world_size, accumulate=config.accumulate), out / "voco_state.pth"
    stored_scaler: dict = {}
    labeller: FrozenLabeller | None = None
    if state_file.exists():
        progress, stored_scaler, stored_labeller = load_state(state_file, model=model, optimizer=optimizer)
        if stored_labeller is not None and isinstance(model, SegmentationModel):
            labeller = FrozenLabeller(model)
            labeller.load_state_dict(stored_labeller)
        if not progress.goes_on_with(processes=world_size, accumulate=config.accumulate, gather=config.gather):
            raise TrainingStopped(
                f"{out}: the run took {progress.accumulate} batch(es) a step in each of {progress.processes} "
                f"process(es) and would draw other batches with {config.accumulate} in each of {world_size}; continue "
                f"it with as many as before{', or with the same product of both' if config.gather else ''}"
            )
        progress.processes, progress.accumulate = world_size, config.accumulate
    if not distributed.same_in_all(progress.step):
        raise TrainingStopped(
            f"{out}: process {rank} finds a state of step {progress.step} there and another process one of another "
            "step; the folder must lie on a file system that all machines share"
        )
    if not state_file.exists() or progress.requested_precision != config.precision:
        progress.precision = sound_precision(config, model, feed, device, console)
        progress.requested_precision = config.precision
    scaler = torch.amp.GradScaler(device.type, enabled=progress.precision == "fp16")
    if stored_scaler:
        scaler.load_state_dict(stored_scaler)
    autocast = partial(autocast_context, progress.precision, device)
    quicken(model, config, progress.precision, device)
    if config.compile:
        model.encoder.compile()
    stepped: nn.Module = model
    if world_size > 1:
        stepped = DistributedDataParallel(model, broadcast_buffers=False)  # no device_ids: they would move all crops

    stop = StopOnSignal()
    log = RunLog(out, first_step=progress.step, steps=config.steps, console=console) if first_process else None
    crops_per_step = config.crops_per_step * world_size
    speed: deque[tuple[float, float]] = deque(maxlen=config.log_every)  # seconds of step, and of it waiting for data
    skipped_in_a_row = 0

    def save() -> None:
        if first_process:
            # the state last: a run killed in between does the steps again and exports again
            export_encoder(out / "voco_encoder.pth", model=model, config=config, plan=plan, progress=progress)
            save_state(
                state_file, model=model, optimizer=optimizer, scaler=scaler, progress=progress, labeller=labeller
            )

    def validate() -> None:
        """Measure on rank 0 and tell the others the step at which the inter-volume weight begins to grow."""
        values: dict[str, Any] = {}
        said = []
        if first_process and voco is not None and feed.validator is not None:
            figures, right = feed.validator.measure(voco, device, autocast)
            if not progress.untrained:
                progress.untrained, progress.untrained_right = figures.as_dict(), right.tolist()
            progress.latest = {
                **figures.as_dict(),
                "significant": bool(gain_is_significant(right, np.array(progress.untrained_right))),
            }
            if progress.ramp_start is None and figures.intra < figures.chance_constant and progress.step > 0:
                progress.ramp_start = progress.step
            values |= {**figures.as_dict(), "untrained_accuracy": progress.untrained["accuracy"]}
            said.append(describe(progress.step, figures, progress.untrained))
        if first_process and isinstance(model, SegmentationModel) and feed.dice is not None:
            progress.dice = feed.dice.measure(model, device, autocast)
            progress.dice_untrained = progress.dice_untrained or progress.dice
            values |= {"dice": mean_dice(progress.dice), **{f"dice {k}": v for k, v in progress.dice.items()}}
            said.append(describe_dice(progress.step, progress.dice, progress.dice_untrained))
        if log is not None:
            log.record(progress.step, "validation", values)
            log.say("\n".join(said))
            draw_progress(out)
        progress.ramp_start = distributed.broadcast_object(progress.ramp_start)

    with log or contextlib.nullcontext(), stop:
        if progress.step == 0:
            validate()
            save()
        batches = feed.batches(progress.step, device)
        while progress.step < config.steps:
            started = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - started
            lr = learning_rate(progress.step, peak=config.lr, warmup_steps=config.warmup_steps, steps=config.steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            inter_weight = inter_volume_weight(
                progress.step, full=config.inter_weight, ramp_steps=config.ramp_steps, ramp_start=progress.ramp_start
            )

            if voco is not None:
                update_momentum(voco.student, voco.teacher, config.teacher_momentum)
            pseudo = None
            if batch.to_label is not None and isinstance(model, SegmentationModel):
                labeller = labeller or FrozenLabeller(model)
                classes = labeller(batch.to_label.image, autocast, config.patches_at_once)
                pseudo = batch.to_label.augmented, classes
            with autocast():
                loss = step_loss(stepped, batch, pseudo, config, progress.step, inter_weight)
            scaler.scale(loss.total).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
            if torch.isfinite(norm) and torch.isfinite(loss.total):
                scaler.step(optimizer)
                skipped_in_a_row = 0
            else:
                progress.skipped_steps += 1
                skipped_in_a_row += 1
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            if skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW * (3 if scaler.is_enabled() else 1):
                raise TrainingStopped(
                    f"loss or gradient were not finite in {skipped_in_a_row} steps in a row, until step "
                    f"{progress.step}; the last state saved is sound. Continue with --precision fp32, or start again "
                    "with a lower --lr"
                )
            if keep_memory is None:
                keep_memory = has_room_to_keep(processes=distributed.local_world_size()) and keep_freed_memory()
            progress.step += 1
            speed.append((time.monotonic() - started, waited))

            if log is not None and progress.step % config.log_every == 0:
                seconds, waiting = (float(np.mean(column)) for column in zip(*speed, strict=True))
                values = {
                    **{name: float(term.detach()) for name, term in zip(loss._fields, loss, strict=True)},
                    "inter_weight": inter_weight,
                    "lr": lr,
                    "grad_norm": float(norm),
                    "crops_per_second": crops_per_step / seconds,
                    "wait_seconds": waiting,
                    "skipped_steps": progress.skipped_steps,
                }
                log.record(progress.step, "training", values)
                log.advance(progress.step, progress_note(values, progress))
            last = progress.step == config.steps
            if last or progress.step % config.val_every == 0:
                validate()
            stopping = distributed.any_process(stop.requested, device)
            if last or stopping or progress.step % config.save_every == 0:
                save()
            if stopping and not last:
                if log is not None:
                    log.say(
                        f"Stopped by a signal after step {progress.step}; its state is saved. Go on with --continue."
                    )
                return None

    if not first_process:
        return None
    draw_progress(out)
    if voco is not None and feed.validator is not None:
        draw_samples(out / "samples.png", feed.validator, voco, device, autocast)
    if isinstance(model, SegmentationModel) and feed.dice is not None:
        draw_segmentations(out / "segmentations.png", feed.dice, model, device, autocast)
    return final_verdict(progress, held_out=bool(plan.validation), labels_held_out=config.fold != "all")


def resolve_device(name: str) -> str:
    """Turn "auto" into the best device there is; on a machine with several GPUs, into this process's own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise TrainingStopped(
                "--device cuda: torch finds no GPU; use --device cpu or install a CUDA build of torch"
            )
        torch.cuda.set_device(distributed.local_rank())
        return f"cuda:{distributed.local_rank()}"
    return name
