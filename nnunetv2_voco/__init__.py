"""VoCo pre-training on unlabelled CT for nnU-Net v2.

This module imports neither torch nor numpy: torch itself imports the package through an entry point
(see `nnunetv2_voco.registration`), and that must cost next to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetv2_voco.encoder_model import load_encoder_model

__version__ = "0.1.0"
__all__ = ["__version__", "load_encoder_model"]


def __getattr__(name: str) -> Any:
    """Import what is exported here when it is asked for."""
    if name == "load_encoder_model":
        from nnunetv2_voco.encoder_model import load_encoder_model

        return load_encoder_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
