"""VoCo pre-training on unlabelled CT for nnU-Net v2.

This module imports neither torch nor numpy: torch itself imports the package through an entry point
(see `nnunetv2_voco.registration`), and that must cost next to nothing.
"""

__version__ = "0.1.0"
