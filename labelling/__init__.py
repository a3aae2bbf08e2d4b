"""Labels for volumes that have none: datasets of nnU-Net from a trained model and a folder of raw CTs."""
