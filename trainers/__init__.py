"""Stage 2: nnU-Net trainers that start from VoCo weights."""
