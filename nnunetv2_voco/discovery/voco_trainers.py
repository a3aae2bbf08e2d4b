"""Re-exports the trainers; the one module that nnU-Net imports to find them.

nnU-Net forgets the modules of a scanned folder after the search. A class defined here could not be pickled; a class
that is only re-exported stays the packaged one.
"""

from nnunetv2_voco.trainers.frozen import (
    nnUNetTrainerVoCo_frozen,
    nnUNetTrainerVoCo_frozen_5ep,
    nnUNetTrainerVoCo_frozen_150ep,
)
from nnunetv2_voco.trainers.lengths import nnUNetTrainerVoCo_5ep, nnUNetTrainerVoCo_150ep
from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.sawtooth import (
    nnUNetTrainerVoCo_sawtooth,
    nnUNetTrainerVoCo_sawtooth_5ep,
    nnUNetTrainerVoCo_sawtooth_150ep,
)
from nnunetv2_voco.trainers.scratch import (
    nnUNetTrainerVoCoScratch,
    nnUNetTrainerVoCoScratch_5ep,
    nnUNetTrainerVoCoScratch_150ep,
)
from nnunetv2_voco.trainers.warmup import (
    nnUNetTrainerVoCo_warmup,
    nnUNetTrainerVoCo_warmup_5ep,
    nnUNetTrainerVoCo_warmup_150ep,
)

__all__ = [
    "nnUNetTrainerVoCo",
    "nnUNetTrainerVoCoScratch",
    "nnUNetTrainerVoCoScratch_150ep",
    "nnUNetTrainerVoCoScratch_5ep",
    "nnUNetTrainerVoCo_150ep",
    "nnUNetTrainerVoCo_5ep",
    "nnUNetTrainerVoCo_frozen",
    "nnUNetTrainerVoCo_frozen_150ep",
    "nnUNetTrainerVoCo_frozen_5ep",
    "nnUNetTrainerVoCo_sawtooth",
    "nnUNetTrainerVoCo_sawtooth_150ep",
    "nnUNetTrainerVoCo_sawtooth_5ep",
    "nnUNetTrainerVoCo_warmup",
    "nnUNetTrainerVoCo_warmup_150ep",
    "nnUNetTrainerVoCo_warmup_5ep",
]
