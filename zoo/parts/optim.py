"""Optimisers as plain tensor maths, so that a whole update can be traced and compiled as one graph.

The state is flat: one vector for all parameters, a dozen operations a step however many layers there are. The
formulas are those of torch.optim, operation by operation.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def scalar(value: float) -> Tensor:
    """Return a number as a tensor: a compiled step is not compiled anew for each value. float64, as Python's own."""
    return torch.scalar_tensor(value, dtype=torch.float64)


class Flat(nn.Module):
    """The gradient of a loss as one vector, clipped by its norm; subclasses say how far to step."""

    def __init__(self, parameters: Iterable[nn.Parameter], max_grad_norm: float | None) -> None:
        super().__init__()
        self.params: list[Tensor] = list(parameters)  # a plain list: the parameters belong to the networks
        self.max_grad_norm = max_grad_norm

    def zeros(self) -> Tensor:
        """Return one zero for every parameter, (P,)."""
        return torch.cat([torch.zeros_like(p).reshape(-1) for p in self.params]).detach()

    def minimize(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        """Step down the gradient of `loss`; returns the gradient's norm before clipping, a scalar."""
        gradients = torch.autograd.grad(loss, self.params)
        with torch.no_grad():
            gradient = torch.cat([g.reshape(-1) for g in gradients])  # (P,)
            norm = torch.linalg.vector_norm(gradient)
            if self.max_grad_norm is not None:
                gradient = gradient * (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            step = self.direction(gradient) * learning_rate
            for p, piece in zip(self.params, step.split([p.numel() for p in self.params]), strict=True):
                p.sub_(piece.view_as(p))
        return norm

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the step for a learning rate of one, (P,); updates the running moments in place."""
        raise NotImplementedError


class Adam(Flat):
    """Adam with bias correction.                                              Kingma and Ba 2015, Algorithm 1"""

    beta1_power: Tensor  # β₁ᵗ of the coming step, the t-th
    beta2_power: Tensor
    correction1: Tensor  # 1 / (1 - β₁ᵗ) and 1 / √(1 - β₂ᵗ)
    correction2: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        max_grad_norm: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, max_grad_norm)
        self.betas, self.eps = betas, eps
        # float64: β₂ᵗ in float32 would differ from torch.optim's Python float. (1,): a compiled update of a float64
        # scalar is lost in torch 2.13. Worked out one step ahead: compiled, what is worked out from scalars in the step
        # that uses it is worked out again for every sixteen parameters, powers, roots and quotients included.
        for name in ("beta1_power", "beta2_power", "correction1", "correction2"):
            self.register_buffer(name, torch.ones(1, dtype=torch.float64, device=self.params[0].device))
        self._count()
        self.register_buffer("exp_avg", self.zeros())
        self.register_buffer("exp_avg_sq", self.zeros())

    def direction(self, gradient: Tensor) -> Tensor:
        beta1, beta2 = self.betas
        self.exp_avg.lerp_(gradient, 1 - beta1)
        self.exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        size = self.correction1.to(gradient.dtype)
        scale = self.correction2.to(gradient.dtype)
        step = self.exp_avg / (self.exp_avg_sq.sqrt() * scale).add_(self.eps) * size
        self._count()
        return step

    def _count(self) -> None:
        """One step more."""
        self.beta1_power.mul_(self.betas[0])
        self.beta2_power.mul_(self.betas[1])
        self.correction1.copy_(1 / (1 - self.beta1_power))
        self.correction2.copy_((1 - self.beta2_power).rsqrt())
