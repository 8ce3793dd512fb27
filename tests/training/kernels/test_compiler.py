"""Where a private name of torch is missing, or a product comes out wrong, torch's own come instead, and it is said."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import zoo
from zoo.training.kernels import compiler, products
from zoo.training.kernels.compiler import compile_whole, is_worth_checking, options_for

PRODUCTS = "zoo.training.kernels.products"


@pytest.fixture(autouse=True)
def first_compile() -> Iterator[None]:
    """As in a new process, without graphs that were kept on disk."""
    torch.compiler.reset()
    compiler._checked_products.cache_clear()
    with torch._inductor.config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        yield
    compiler._checked_products.cache_clear()


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("lowerings are registered in another way now")


def missing_name(patch: pytest.MonkeyPatch) -> None:
    patch.delattr("torch._inductor.lowering.register_lowering")
    patch.delitem(sys.modules, PRODUCTS)


def missing_module(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "torch._inductor.codegen.cpp_template", None)
    patch.delitem(sys.modules, PRODUCTS)


def missing_attribute(patch: pytest.MonkeyPatch) -> None:
    patch.delattr("torch._inductor.ir.ExternKernel.require_contiguous_strides")


def no_lowering(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, PRODUCTS)
    patch.setattr("torch._inductor.lowering.register_lowering", refuse)
    for name in ("define", "impl", "register_fake"):  # which this process has done before
        patch.setattr(f"torch.library.{name}", lambda *args: None)


def wrong_kernel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(products, "CODE", products.CODE.replace("{num_columns}, depth = {depth}", "{num_columns}, depth = 1"))


def one_column_short(patch: pytest.MonkeyPatch) -> None:
    code = products.CODE.replace("num_columns - column), depth", "num_columns - column - 1), depth")
    patch.setattr(products, "CODE", code)


def no_such_kernel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(products, "CODE", products.CODE.replace("brgemm", "brgemm_of_old"))


def no_cpp(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(products, "CODE", products.CODE.replace("const int64_t share", "const int64_t share share"))


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a name is missing": (missing_name, "register_lowering"),
    "a module is missing": (missing_module, "cpp_template"),
    "an attribute is missing": (missing_attribute, "require_contiguous_strides"),
    "the lowering cannot be registered": (no_lowering, "registered in another way"),
    "the kernel is wrong": (wrong_kernel, "comes out wrong"),
    "the kernel leaves a column out": (one_column_short, "comes out wrong"),
    "the kernel is not there": (no_such_kernel, "brgemm_of_old"),
    "the kernel is no C++": (no_cpp, ""),
}


def multiplied(kernels: str) -> tuple[Tensor, Tensor]:
    left, right = torch.randn(7, 5), torch.randn(5, 9)
    torch.compiler.reset()
    return torch.compile(torch.mm, options=options_for(kernels))(left, right), torch.mm(left, right)


@pytest.mark.parametrize("failure", FAILURES)
def test_torchs_own_products_come_instead_and_it_is_said_once(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it, reason = FAILURES[failure]
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.warns(
            UserWarning, match=f"torch's own products, and run slower: .*{reason}.*--kernels torch"
        ) as said:
            assert options_for("auto") == {}
        assert sum("torch's own products" in str(each.message) for each in said) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert options_for("auto") == options_for("torch") == {}
        found, expected = multiplied("auto")
    torch.testing.assert_close(found, expected)


def test_nothing_is_said_where_all_is_right() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # torch's own modules are imported here, and may be deprecated
        assert options_for("auto") == products.OPTIONS
        found, expected = multiplied("auto")
    torch.testing.assert_close(found, expected)


def test_torch_alone_never_looks_for_the_zoos_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PRODUCTS, None)  # to import it is an error
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert options_for("torch") == {}


def test_instructions_that_cannot_be_picked_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._inductor.cpu_vec_isa", None)
    compile_whole(Doubling().step, kernels="torch", few_guards=False)


class Doubling:
    """Something to compile."""

    def step(self, x: Tensor) -> Tensor:
        return 2 * x


def test_rounded_factors_are_no_reason_to_check_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one_column_short(monkeypatch)
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.warns(UserWarning, match="comes out wrong"):
            options_for("auto")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


RUN = """
import sys, warnings
import torch, zoo
def trained(kernels, **changes):
    settings = dict(total_steps=60, seed=1, num_envs=2, hidden=(16, 16), compile="on", eval_episodes=1, **changes)
    agent = zoo.train("a2c", "CartPole-v1", kernels=kernels, **settings)
    return torch.cat([p.detach().flatten() for p in agent.parameters()])
torch_alone = trained("torch")
assert "zoo.training.kernels.products" not in sys.modules
import torch._inductor.ir
del torch._inductor.ir.FixedLayout
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert torch.equal(trained("auto"), torch_alone)
    assert torch.equal(trained("auto"), torch_alone)
said = [str(each.message) for each in caught if "products" in str(each.message)]
assert len(said) == 1, said
print(said[0])
"""


def test_a_training_falls_back_to_the_numbers_of_torch_alone() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FixedLayout" in done.stdout


class Guard(NamedTuple):
    """What of torch's guards is asked for."""

    name: str
    guard_type: str
    is_global: bool = False


@pytest.mark.parametrize(
    ("guard", "worth"),
    [
        (Guard("batch.rows.obs", "TENSOR_MATCH"), True),
        (Guard("", "GRAD_MODE"), True),
        (Guard("self.scale", "CONSTANT_MATCH"), True),
        (Guard("self.config.gamma", "EQUALS_MATCH"), True),
        (Guard("self._modules['optimizer'].eps", "CONSTANT_MATCH"), True),
        (Guard("self.schedule", "SOME_GUARD_OF_A_LATER_TORCH"), True),
        (Guard("selfless", "TENSOR_MATCH"), True),
        (Guard("self._modules['q']._parameters['weight']", "TENSOR_MATCH"), False),
        (Guard("self._modules['q']", "TYPE_MATCH"), False),
        (Guard("G['torch']", "MODULE_MATCH", is_global=True), False),
    ],
)
def test_guards_on_objects_of_the_algorithm_are_left_out_and_no_others(guard: Guard, worth: bool) -> None:
    assert is_worth_checking(guard) is worth
