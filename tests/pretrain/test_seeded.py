import random

import numpy as np
import pytest
import torch

from nnunetv2_voco.pretrain.seeded import seeded

STATE = np.random.SeedSequence((3, 5))


def drawn() -> list[float]:
    return [torch.rand(1).item(), np.random.rand(), random.random()]


def states() -> tuple[list[int], list[int], tuple]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_draws_inside_are_a_function_of_the_state_alone():
    with seeded(STATE):
        first = drawn()
    drawn()
    with seeded(np.random.SeedSequence((3, 5))):
        assert drawn() == first
    with seeded(np.random.SeedSequence((3, 6))):
        other = drawn()
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_draws_outside_go_on_as_if_nothing_had_been_drawn():
    before = states()
    with seeded(STATE):
        drawn()
    assert states() == before


def test_generators_are_restored_after_an_error():
    before = states()
    with pytest.raises(IndexError), seeded(STATE):
        [][np.random.randint(1)]
    assert states() == before


def test_torch_and_numpy_take_the_first_two_words_of_the_state():
    """Those of runs that were started before Python's generator was seeded as well: they resume with equal samples."""
    torch_word, numpy_word = STATE.generate_state(2)
    torch_alone = torch.rand(1, generator=torch.Generator().manual_seed(int(torch_word))).item()
    with seeded(STATE):
        assert drawn()[:2] == [torch_alone, np.random.RandomState(numpy_word).rand()]
