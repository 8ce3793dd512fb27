"""torch's compiler: how a step is compiled, what it compiles products to, and why it could not."""

import re
import warnings
from collections.abc import Callable
from functools import cache
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor

from zoo.machine import safe_path, torch_settings

# Guards on objects rather than on numbers, by torch's names.
OBJECTS = {"TENSOR_MATCH", "TYPE_MATCH", "BUILTIN_MATCH", "DICT_KEYS_MATCH", "DUPLICATE_INPUT"}
OBJECTS |= {"NOT_PRESENT_IN_GENERIC_DICT", "EMPTY_NN_MODULE_HOOKS_DICT"}


def compile_whole(step: Any, *, kernels: str, few_guards: bool) -> Callable[..., Any]:
    """`step` as one graph, which torch makes at the first call and again wherever its guards say so.

    `kernels` is auto or torch, see `options_for`. With `few_guards`, the guards are those of `is_worth_checking`.
    Raises what torch raises where it cannot compile a first product; see `refusal`.
    """
    torch._dynamo.config.trace_autograd_ops = True  # torch.autograd.grad inside the graph
    with safe_path():  # torch tries in another process what the processor can do
        _pick_instructions()
        options = options_for(kernels)
    if few_guards:
        options = {**options, "guard_filter_fn": lambda guards: [is_worth_checking(guard) for guard in guards]}
    return torch.compile(_with_code_of_its_own(step), fullgraph=True, options=options)


def _pick_instructions() -> None:
    try:
        from torch._inductor.cpu_vec_isa import pick_vec_isa
    except ImportError:  # then torch does so when it compiles
        return
    pick_vec_isa()


def options_for(kernels: str) -> dict[str, Any]:
    """Options of torch.compile: with `torch` none, with `auto` those of kernels.products, where they come out right."""
    return _checked_products() if kernels == "auto" else {}


@cache
def _checked_products() -> dict[str, Any]:
    """Return the options of kernels.products, or, with a warning, none where they do not fit this torch.

    They rest on private names of torch, so anything may fail: an import, a registration, a compilation, a product.
    """
    try:
        from zoo.training.kernels.products import OPTIONS

        _check_product(OPTIONS)
    except Exception as error:
        if refusal(error) is not None:
            _check_product({})  # the same for torch's own products, where the machine is to blame
        cause = error.inner_exception if isinstance(error, torch._dynamo.exc.BackendCompilerFailed) else error
        said = str(cause).strip().splitlines() or [type(cause).__name__]
        warnings.warn(
            f"updates compile to torch's own products, and run slower: zoo's do not fit torch {torch.__version__} "
            f"({said[0]:.200}); --kernels torch does without them from the start",
            stacklevel=5,
        )
        return {}
    return OPTIONS


def _check_product(options: dict[str, Any]) -> None:
    """Raise ArithmeticError unless a compiled product is right; odd sizes, and more columns than one panel has."""
    left = torch.arange(15.0).reshape(3, 5) / 7 - 1
    right = torch.arange(655.0).reshape(5, 131) % 11 - 5

    def multiply(left: Tensor, right: Tensor) -> Tensor:
        return torch.mm(left, right)

    with torch_settings(torch.get_num_threads()):  # where products have full precision
        found = torch.compile(multiply, fullgraph=True, options=options)(left, right)
        expected = torch.mm(left, right)
    if not torch.allclose(found, expected, rtol=1e-5, atol=1e-4):
        raise ArithmeticError("a product of 3 x 5 and 5 x 131 comes out wrong")


def _with_code_of_its_own(method: Any) -> MethodType:
    """`method` with a copy of its code, where torch keeps its graphs: no other algorithm finds them there."""
    function = method.__func__
    copy = FunctionType(function.__code__.replace(), function.__globals__, closure=function.__closure__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return MethodType(copy, method.__self__)


def is_worth_checking(guard: Any) -> bool:
    """Whether a guard may fail in an algorithm that promises `zoo.protocol.FewGuards`.

    Left out are those that its layers, weights and helpers are still the same objects, of the same types, and that
    globals are: four in five. Its numbers, however deep they lie, are checked at each call, and so are arguments and
    torch's own state.
    """
    own = re.split(r"\W", guard.name)[0] == "self"
    return not guard.is_global and (not own or guard.guard_type not in OBJECTS)


def compiler_errors() -> type[Exception]:
    """What torch raises where it fails to compile; a function, so that runs that compile nothing do not import it."""
    return torch._dynamo.exc.TorchDynamoException


def refusal(error: BaseException | None) -> BaseException | None:
    """What the machine refused, a file or the C++ compiler's work, behind an error of torch's compiler; or nothing."""
    refusals = (OSError, torch._inductor.exc.CppCompileError)  # a full disk is met by the C++ compiler, too
    while error is not None and not isinstance(error, refusals):
        inner = error.inner_exception if isinstance(error, torch._dynamo.exc.BackendCompilerFailed) else None
        error = inner or error.__cause__ or error.__context__
    return error
