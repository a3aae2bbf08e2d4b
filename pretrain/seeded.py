"""Global random generators that are a function of a seed for a while."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(state: np.random.SeedSequence) -> Iterator[None]:
    """Make what is drawn inside from torch's, numpy's and Python's global generators a function of `state`.

    Outside the generators are as before, also after an error. For transforms that draw from them. Of torch's
    generators it is the one of the CPU; those of other devices are left alone.
    """
    torch_seed, numpy_seed, python_seed = (int(word) for word in state.generate_state(3))
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.default_generator.manual_seed(torch_seed)
            np.random.seed(numpy_seed)
            random.seed(python_seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
