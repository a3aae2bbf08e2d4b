"""The benchmark: what pre-training is worth on a data set, beside the same network from scratch."""
