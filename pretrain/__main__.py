"""`python -m nnunetv2_voco.pretrain` is `voco_pretrain`."""

from nnunetv2_voco.pretrain.cli import main

if __name__ == "__main__":
    main()
