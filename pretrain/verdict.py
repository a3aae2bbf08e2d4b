"""Has the encoder learned where things are? The answer in words, from what was measured on held-out volumes."""

import numpy as np

from nnunetv2_voco.pretrain.validation import Validation

CLEAR_GAIN = 0.05
"""Least gain in position accuracy over the untrained encoder that counts as learned, beside its significance."""


def gain_is_significant(right: np.ndarray, right_untrained: np.ndarray) -> bool:
    """Whether more crops were put right than wrong by training, by McNemar's test at about 1 in 1000."""
    gained = int(np.sum(right & ~right_untrained))
    lost = int(np.sum(~right & right_untrained))
    return gained - lost > 3.1 * np.sqrt(max(1, gained + lost))


def has_learned(now: Validation, untrained: Validation, *, significant: bool) -> bool:
    """Whether both signs are there: loss below the best constant, accuracy clearly above the untrained encoder's."""
    return now.intra < now.chance_constant and now.accuracy - untrained.accuracy >= CLEAR_GAIN and significant


def verdict(now: Validation, untrained: Validation, *, significant: bool, held_out: bool) -> str:
    """Say in plain words whether the run has learned where things are."""
    where = "held-out volumes" if held_out else "the training volumes (too few to hold any out)"
    accuracy = (
        f"on {where} the most similar base is the right one for {now.accuracy:.0%} of {now.crops} crops "
        f"(untrained encoder {untrained.accuracy:.0%}, blind guess {now.blind:.0%})"
    )
    loss = f"the intra-volume loss is {now.intra:.3f} (best constant guess {now.chance_constant:.3f})"
    if has_learned(now, untrained, significant=significant):
        return f"The encoder has learned where things are in the body: {accuracy}, and {loss}."
    advice = "Train for more steps; if the loss stays at the best constant, try another learning rate (--lr)."
    if now.spread < 0.1:
        advice = "The embeddings have collapsed to nearly one point: lower the learning rate (--lr)."
    partly = "only in part" if now.accuracy > untrained.accuracy and significant else "not"
    return f"The encoder has {partly} learned where things are in the body: {accuracy}, and {loss}. {advice}"
