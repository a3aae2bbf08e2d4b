"""Makes nnU-Net find this package's trainers right after `pip install`.

nnU-Net looks for trainer classes in its own package and in the folder that the environment variable
`nnUNet_extTrainer` names. `register` appends `discovery_folder()` to that variable. It is called through the entry
point group `torch.backends`: torch calls those functions when it is imported, and whoever looks up a trainer has
imported torch. The group is meant for device back ends; it is borrowed here because it is the one hook that runs in
the same process before nnU-Net reads the variable and that needs no file outside this package.

Because an exception here would break `import torch` for the whole environment, this module uses nothing but the
standard library and `register` never raises.
"""

import os

VARIABLE = "nnUNet_extTrainer"


def discovery_folder() -> str:
    """Folder with the one module that re-exports the trainers, for `nnUNet_extTrainer`."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "discovery")


def register() -> None:
    """Append `discovery_folder()` to `nnUNet_extTrainer`, once; never raise."""
    try:
        folder = discovery_folder()
        entries = [entry for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry]
        if folder not in entries:
            os.environ[VARIABLE] = os.pathsep.join([*entries, folder])
    except Exception:  # `import torch` must survive whatever happens here
        return
