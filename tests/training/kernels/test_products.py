"""Products of a compiled graph are A·B, whatever way the factors lie in memory; the oracle is a sum in float64."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_cpp_code

from zoo.training.kernels.products import OPTIONS, PANEL

CALL = "at::native::cpublas::brgemm("
SPREAD = "omp parallel for collapse"

# The sizes of two matrices, and the factors made from them.
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]] = {
    "plain": ((24, 16), (16, 40), lambda a, b: (a, b)),
    "left transposed": ((16, 40), (16, 48), lambda a, b: (a.t(), b)),
    "left transposed, few columns": ((16, 24), (16, 3), lambda a, b: (a.t(), b)),
    "right transposed": ((24, 16), (40, 16), lambda a, b: (a, b.t())),
    "both transposed": ((16, 24), (40, 16), lambda a, b: (a.t(), b.t())),
    "some columns": ((24, 20), (16, 50), lambda a, b: (a[:, 3:19], b[:, 7:47])),
    "some rows": ((30, 16), (20, 40), lambda a, b: (a[5:], b[4:])),
    "parts of one matrix": ((40, 16), (1, 1), lambda a, b: (a[1:25], a[20:36])),
    "a matrix by itself, transposed": ((24, 16), (1, 1), lambda a, b: (a, a.t())),
    "a row repeated": ((1, 16), (16, 40), lambda a, b: (a.expand(24, 16), b)),
    "one row": ((1, 16), (16, 40), lambda a, b: (a, b)),
    "one column": ((24, 16), (16, 1), lambda a, b: (a, b)),
    "a sum of one": ((24, 1), (1, 40), lambda a, b: (a, b)),
    "several panels": ((24, 16), (16, 2 * PANEL + 5), lambda a, b: (a, b)),
    "made in the graph": ((24, 16), (40, 16), lambda a, b: (a * 2, torch.tanh(b).t())),
    "stacks": ((2, 24, 16), (2, 16, 40), lambda a, b: (a, b)),
    "stacks, transposed": ((2, 16, 24), (2, 40, 16), lambda a, b: (a.mT, b.mT)),
    "stacks, one matrix for all": ((24, 16), (2, 16, 40), lambda a, b: (a.expand(2, 24, 16), b)),
    "stacks, some of several": ((3, 24, 16), (4, 16, 40), lambda a, b: (a[1:], b[2:])),
    "large": ((301, 64), (64, 65), lambda a, b: (a, b)),  # two threads share the rows, which are odd
    "large stacks": ((2, 301, 64), (2, 64, 65), lambda a, b: (a, b)),
}
NUM_LARGE = 2


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
    torch.set_float32_matmul_precision("highest")


def run(function: Callable[..., Any], *args: Tensor) -> tuple[Any, str]:
    """What the compiled function gives, and its code."""
    result, code = run_and_get_cpp_code(torch.compile(function, options=OPTIONS), *args)
    return result, code


def assert_exact(results: list[Tensor], factors: list[tuple[Tensor, Tensor]]) -> None:
    for name, result, (left, right) in zip(CASES, results, factors, strict=True):
        exact = left.double() @ right.double()
        torch.testing.assert_close(
            result.double(), exact, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_products_of_views_that_the_graph_makes() -> None:
    matrices = [(torch.randn(*left), torch.randn(*right)) for left, right, _ in CASES.values()]

    def multiply(*matrices: tuple[Tensor, Tensor]) -> list[Tensor]:
        pairs = (view(*pair) for pair, (_, _, view) in zip(matrices, CASES.values(), strict=True))
        return [left @ right for left, right in pairs]

    results, code = run(multiply, *matrices)
    assert code.count(CALL) >= len({tuple(result.shape) for result in results})  # the same code is there once
    assert code.count(SPREAD) == NUM_LARGE
    assert_exact(results, [view(*pair) for pair, (_, _, view) in zip(matrices, CASES.values(), strict=True)])


def test_products_of_views_that_the_graph_is_given() -> None:
    factors = [view(torch.randn(*left), torch.randn(*right)) for left, right, view in CASES.values()]
    results, _ = run(lambda *factors: [left @ right for left, right in factors], *factors)
    assert_exact(results, factors)


def test_sizes_that_vary() -> None:
    multiply = torch.compile(lambda left, right: left @ right, options=OPTIONS, dynamic=True)
    for num_rows, num_columns in ((24, 40), (7, 300)):
        left, right = torch.randn(num_rows, 16), torch.randn(16, num_columns)
        exact = left.double() @ right.double()
        torch.testing.assert_close(multiply(left, right).double(), exact, rtol=1e-5, atol=1e-5)


def test_other_types_and_rounded_factors_are_left_to_torch() -> None:
    left, right = torch.randn(24, 16), torch.randn(16, 40)
    assert CALL not in run(lambda: (left.double() @ right.double(), left.bfloat16() @ right.bfloat16()))[1]

    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return left @ right

    torch.set_float32_matmul_precision("medium")
    assert CALL not in run(multiply, left, right)[1]
    torch.set_float32_matmul_precision("highest")
    assert CALL in run(multiply, left, right)[1]
