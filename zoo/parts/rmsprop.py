"""RMSprop, the optimiser of the A3C paper."""

from collections.abc import Iterable

from torch import Tensor, nn

from zoo.parts.optim import Flat


class RMSprop(Flat):
    """RMSprop with ε outside the square root, as torch has it.                        Hinton 2012, lecture 6e"""

    square_avg: Tensor

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        max_grad_norm: float | None = None,
        alpha: float = 0.99,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, max_grad_norm)
        self.alpha, self.eps = alpha, eps
        self.register_buffer("square_avg", self.zeros())

    def direction(self, gradient: Tensor) -> Tensor:
        self.square_avg.mul_(self.alpha).addcmul_(gradient, gradient, value=1 - self.alpha)
        return gradient / (self.square_avg.sqrt() + self.eps)
