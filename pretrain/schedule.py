"""Learning rate and loss weights as functions of the step."""

import math


def learning_rate(step: int, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to `peak`, then half a cosine down to 0 at `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def inter_volume_weight(step: int, *, full: float, ramp_steps: int, ramp_start: int | None) -> float:
    """Weight of the inter-volume loss.

    At full weight from the start the loss can settle where all similarities are nearly constant: predicting nothing
    satisfies its target, which is the teacher's own opinion. So it begins once the intra-volume task is being learned.

    Args:
        step: The current step.
        full: Weight at the end of the ramp.
        ramp_steps: Length of the ramp; 0 gives the full weight always, as published.
        ramp_start: Step at which the ramp began; None while it has not.
    """
    if ramp_steps == 0:
        return full
    if ramp_start is None:
        return 0.0
    return full * min(1.0, (step - ramp_start) / ramp_steps)
