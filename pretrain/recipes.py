"""What a run learns from: VoCo's contrast, labelled datasets, pseudo-labels, or several of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One way to pre-train, as in the authors' code.

    Attributes:
        contrast: VoCo's loss on unlabelled crops.
        labelled: nnU-Net's loss of the whole network on labelled patches.
        pseudo: From half the steps on, the same loss on unlabelled crops, labelled by a frozen copy of the network.
        detached: Whether pseudo-labels train the decoder alone.
    """

    contrast: bool = False
    labelled: bool = False
    pseudo: bool = False
    detached: bool = False

    @property
    def unlabelled(self) -> bool:
        """Whether unlabelled volumes are needed."""
        return self.contrast or self.pseudo


RECIPES = {
    "ssl": Recipe(contrast=True),
    "supervised": Recipe(labelled=True),
    "semi": Recipe(labelled=True, pseudo=True),
    "omni": Recipe(contrast=True, labelled=True, pseudo=True, detached=True),
}


def first_pseudo_step(steps: int) -> int:
    """First of `steps` steps with pseudo-labels: half of them."""
    return steps // 2
