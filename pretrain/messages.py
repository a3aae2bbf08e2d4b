"""What a run tells a person about its validations."""

from nnunetv2_voco.pretrain.labelled.validation import dice_verdict
from nnunetv2_voco.pretrain.state import Progress
from nnunetv2_voco.pretrain.validation import Validation
from nnunetv2_voco.pretrain.verdict import verdict


def describe(step: int, now: Validation, untrained: dict) -> str:
    """One line about a validation."""
    across = "" if now.accuracy_across is None else f", across volumes {now.accuracy_across:.0%}"
    return (
        f"  validation at step {step}: position accuracy {now.accuracy:.1%} (untrained {untrained['accuracy']:.1%}, "
        f"blind {now.blind:.1%}; augmented {now.accuracy_augmented:.1%}{across}), "
        f"intra loss {now.intra:.3f} (best constant {now.chance_constant:.3f}), similarity of positives "
        f"{now.positives:.2f}, of negatives {now.negatives:.2f}, spread {now.spread:.2f}"
    )


def progress_note(values: dict[str, float], progress: Progress) -> str:
    """What the progress bar says after a step."""
    parts = [f"loss {values['total']:.3f}"]
    if progress.untrained:
        parts += [f"intra {values['intra']:.3f}", f"position accuracy {progress.latest.get('accuracy', 0):.0%}"]
    if "labelled" in values:
        parts += [f"{name} {values[name]:.3f}" for name in ("labelled", "pseudo") if values[name]]
    return "  ".join([*parts, f"{values['crops_per_second']:.0f} crops/s"])


def final_verdict(progress: Progress, *, held_out: bool, labels_held_out: bool = True) -> str:
    """Say whether the run has learned; whether volumes, and labelled cases, were held out to tell."""
    texts = []
    if progress.latest:
        latest = {name: value for name, value in progress.latest.items() if name != "significant"}
        texts.append(
            verdict(
                Validation(**latest),
                Validation(**progress.untrained),
                significant=progress.latest["significant"],
                held_out=held_out,
            )
        )
    if progress.dice:
        texts.append(dice_verdict(progress.dice, progress.dice_untrained, held_out=labels_held_out))
    return " ".join(texts)
