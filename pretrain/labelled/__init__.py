"""Labels in pre-training: nnU-Net's datasets as one (`sets`, `split`), their patches, and the whole network's loss."""
