"""Re-exports the trainers; the one module that nnU-Net imports to find them.

nnU-Net forgets the modules of a scanned folder after the search. A class defined here could not be pickled; a class
that is only re-exported stays the packaged one.
"""

from nnunetv2_voco.trainers.adamw import (
    nnUNetTrainerVoCo_adamw,
    nnUNetTrainerVoCo_adamw_5ep,
    nnUNetTrainerVoCo_adamw_150ep,
)
from nnunetv2_voco.trainers.frozen import (
    nnUNetTrainerVoCo_frozen,
    nnUNetTrainerVoCo_frozen_5ep,
    nnUNetTrainerVoCo_frozen_150ep,
)
from nnunetv2_voco.trainers.gentle import (
    nnUNetTrainerVoCo_gentle,
    nnUNetTrainerVoCo_gentle_5ep,
    nnUNetTrainerVoCo_gentle_150ep,
    nnUNetTrainerVoCo_gentle_nomirroring,
)
from nnunetv2_voco.trainers.lengths import nnUNetTrainerVoCo_5ep, nnUNetTrainerVoCo_150ep
from nnunetv2_voco.trainers.nnUNetTrainerVoCo import nnUNetTrainerVoCo
from nnunetv2_voco.trainers.nomirroring import (
    nnUNetTrainerVoCo_adamw_nomirroring,
    nnUNetTrainerVoCo_nomirroring,
    nnUNetTrainerVoCo_nomirroring_5ep,
    nnUNetTrainerVoCo_nomirroring_150ep,
)
from nnunetv2_voco.trainers.prior import (
    nnUNetTrainerVoCo_prior,
    nnUNetTrainerVoCo_prior_5ep,
    nnUNetTrainerVoCo_prior_150ep,
    nnUNetTrainerVoCo_prior_nomirroring,
)
from nnunetv2_voco.trainers.prior_gentle import (
    nnUNetTrainerVoCo_prior_gentle,
    nnUNetTrainerVoCo_prior_gentle_5ep,
    nnUNetTrainerVoCo_prior_gentle_150ep,
    nnUNetTrainerVoCo_prior_gentle_nomirroring,
)
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
from nnunetv2_voco.trainers.swin import (
    nnUNetTrainerVoCoSwin_B,
    nnUNetTrainerVoCoSwin_H,
    nnUNetTrainerVoCoSwin_L,
)
from nnunetv2_voco.trainers.swin_lengths import (
    nnUNetTrainerVoCoSwin_B_5ep,
    nnUNetTrainerVoCoSwin_B_150ep,
    nnUNetTrainerVoCoSwin_H_5ep,
    nnUNetTrainerVoCoSwin_H_150ep,
    nnUNetTrainerVoCoSwin_L_5ep,
    nnUNetTrainerVoCoSwin_L_150ep,
)
from nnunetv2_voco.trainers.swin_scratch import (
    nnUNetTrainerVoCoSwinScratch_B,
    nnUNetTrainerVoCoSwinScratch_B_5ep,
    nnUNetTrainerVoCoSwinScratch_B_150ep,
    nnUNetTrainerVoCoSwinScratch_H,
    nnUNetTrainerVoCoSwinScratch_H_5ep,
    nnUNetTrainerVoCoSwinScratch_H_150ep,
    nnUNetTrainerVoCoSwinScratch_L,
    nnUNetTrainerVoCoSwinScratch_L_5ep,
    nnUNetTrainerVoCoSwinScratch_L_150ep,
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
    "nnUNetTrainerVoCoSwinScratch_B",
    "nnUNetTrainerVoCoSwinScratch_B_150ep",
    "nnUNetTrainerVoCoSwinScratch_B_5ep",
    "nnUNetTrainerVoCoSwinScratch_H",
    "nnUNetTrainerVoCoSwinScratch_H_150ep",
    "nnUNetTrainerVoCoSwinScratch_H_5ep",
    "nnUNetTrainerVoCoSwinScratch_L",
    "nnUNetTrainerVoCoSwinScratch_L_150ep",
    "nnUNetTrainerVoCoSwinScratch_L_5ep",
    "nnUNetTrainerVoCoSwin_B",
    "nnUNetTrainerVoCoSwin_B_150ep",
    "nnUNetTrainerVoCoSwin_B_5ep",
    "nnUNetTrainerVoCoSwin_H",
    "nnUNetTrainerVoCoSwin_H_150ep",
    "nnUNetTrainerVoCoSwin_H_5ep",
    "nnUNetTrainerVoCoSwin_L",
    "nnUNetTrainerVoCoSwin_L_150ep",
    "nnUNetTrainerVoCoSwin_L_5ep",
    "nnUNetTrainerVoCo_150ep",
    "nnUNetTrainerVoCo_5ep",
    "nnUNetTrainerVoCo_adamw",
    "nnUNetTrainerVoCo_adamw_150ep",
    "nnUNetTrainerVoCo_adamw_5ep",
    "nnUNetTrainerVoCo_adamw_nomirroring",
    "nnUNetTrainerVoCo_frozen",
    "nnUNetTrainerVoCo_frozen_150ep",
    "nnUNetTrainerVoCo_frozen_5ep",
    "nnUNetTrainerVoCo_gentle",
    "nnUNetTrainerVoCo_gentle_150ep",
    "nnUNetTrainerVoCo_gentle_5ep",
    "nnUNetTrainerVoCo_gentle_nomirroring",
    "nnUNetTrainerVoCo_prior",
    "nnUNetTrainerVoCo_prior_150ep",
    "nnUNetTrainerVoCo_prior_5ep",
    "nnUNetTrainerVoCo_prior_gentle",
    "nnUNetTrainerVoCo_prior_gentle_150ep",
    "nnUNetTrainerVoCo_prior_gentle_5ep",
    "nnUNetTrainerVoCo_prior_gentle_nomirroring",
    "nnUNetTrainerVoCo_prior_nomirroring",
    "nnUNetTrainerVoCo_nomirroring",
    "nnUNetTrainerVoCo_nomirroring_150ep",
    "nnUNetTrainerVoCo_nomirroring_5ep",
    "nnUNetTrainerVoCo_sawtooth",
    "nnUNetTrainerVoCo_sawtooth_150ep",
    "nnUNetTrainerVoCo_sawtooth_5ep",
    "nnUNetTrainerVoCo_warmup",
    "nnUNetTrainerVoCo_warmup_150ep",
    "nnUNetTrainerVoCo_warmup_5ep",
]
