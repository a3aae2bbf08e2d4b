"""The folder that nnU-Net scans for trainers; see `nnunetv2_voco.registration`."""
