"""How training uses the processor."""

import numpy as np
import pytest
import torch

import zoo
from zoo.machine import flushes_subnormals, processor


@pytest.fixture(autouse=True)
def untouched() -> None:
    torch.set_flush_denormal(False)


def test_subnormal_numbers_are_zero_inside_and_numbers_outside() -> None:
    threads, tiny = torch.get_num_threads(), torch.full((64,), 1e-38)
    assert not flushes_subnormals()
    with processor(threads + 1):
        assert flushes_subnormals()
        assert torch.get_num_threads() == threads + 1
        assert (tiny * 0.1 == 0).all()
        with processor(1):
            pass
        assert flushes_subnormals()
    assert (tiny * 0.1 > 0).all()
    assert torch.get_num_threads() == threads


def test_it_ends_with_an_error() -> None:
    with pytest.raises(KeyError), processor(1):
        raise KeyError
    assert not flushes_subnormals()


def test_training_leaves_the_processor_as_it_was() -> None:
    zoo.train("a2c", "CartPole-v1", total_steps=40, seed=0, eval_episodes=1)
    assert not flushes_subnormals()
    assert np.float32(1e-38) * np.float32(0.1) > 0


def test_bfloat16_rounds_the_factors_of_products_alone() -> None:
    a, b = torch.rand(256, 256), torch.rand(256, 256)
    exact = a.double() @ b.double()
    with processor(1, "bfloat16"):
        assert torch.get_float32_matmul_precision() == "medium"
        error = ((a @ b) - exact).abs().max() / exact.abs().max()
    assert error < 2**-8  # exact where the processor has no bfloat16
    assert torch.get_float32_matmul_precision() == "highest"
    assert ((a @ b) - exact).abs().max() / exact.abs().max() < 1e-6
