"""`python -m nnunetv2_voco` prints the folder to put into `nnUNet_extTrainer` by hand."""

from nnunetv2_voco.registration import discovery_folder

if __name__ == "__main__":
    print(discovery_folder())
