"""Time recursions: the maths that is easy to get wrong, once.

Every tensor is time first, (T, B) or (T,). The ends of episodes arrive as numbers, so nothing here sees `done`:

    discount = γ (1 - terminated)      no future after termination
    lam      = λ (1 - truncated)       a future exists, but this trajectory stops: bootstrap and cut the trace

`next_value` is V at the true successor of each row, also at an episode's end; it is never read off the next row,
which may belong to another episode. The last row of a segment always bootstraps.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def _scan(base: Tensor, decay: Tensor) -> Tensor:
    """x_t = base_t + decay_t x_{t+1}, from the last row to the first, with x_T = 0."""
    *bases, last = base.unbind()
    rows = [last]
    for b, d in zip(bases[::-1], decay.unbind()[-2::-1], strict=True):
        rows.append(torch.addcmul(b, d, rows[-1]))
    return torch.stack(rows[::-1])


def gae(*, reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, lam: Tensor) -> Tensor:
    """Generalised advantages, (T, B).                                  Schulman et al. 2016, equations 11 and 16

    δ_t = r_t + discount_t V(s'_t) - V(s_t)          A_t = δ_t + discount_t lam_t A_{t+1}
    """
    delta = reward + discount * next_value - value
    return _scan(delta, discount * lam)


def lambda_return(*, reward: Tensor, discount: Tensor, next_value: Tensor, lam: Tensor) -> Tensor:
    """λ-returns, (T, B); equal to gae + value.                            Sutton and Barto 2018, equation 12.20

    G_t = r_t + discount_t ((1 - lam_t) V(s'_t) + lam_t G_{t+1})     with G_T = V(s'_{T-1})
    """
    lam = torch.cat([lam[:-1], torch.zeros_like(lam[-1:])])
    return _scan(reward + discount * (1 - lam) * next_value, discount * lam)


def n_step(*, reward: Tensor, discount: Tensor, next_value: Tensor, lam: Tensor, n: int) -> Tensor:
    """n-step returns, (T, B).                                              Sutton and Barto 2018, equation 7.1

    G¹_t = r_t + discount_t V(s'_t)
    Gⁿ_t = r_t + discount_t ((1 - lam_t) V(s'_t) + lam_t Gⁿ⁻¹_{t+1})

    With lam = 1 - truncated, fewer than n rewards are summed where the trajectory or the segment ends.
    """
    one_step = reward + discount * next_value
    bootstrap, trace = reward + discount * (1 - lam) * next_value, discount * lam
    target = one_step
    for _ in range(n - 1):
        target = torch.cat([bootstrap[:-1] + trace[:-1] * target[1:], one_step[-1:]])
    return target


def segment_return(*, reward: Tensor, discount: Tensor, next_value: Tensor, lam: Tensor) -> Tensor:
    """The n-step return of the first of n rows, (B,): of the transition that a segment of a replay starts with."""
    return n_step(reward=reward, discount=discount, next_value=next_value, lam=lam, n=len(reward))[0]


def executed_next(action: Tensor, *, drawn: Tensor, ended: Tensor) -> Tensor:
    """SARSA's a', the action executed after each row, (T, B, ...).             Sutton and Barto 2018, section 6.4

    It is the next row's `action`. Where the episode `ended`, (T, B), and after the last row of the rollout none is
    known: there a' is `drawn`, (T, B, ...), by the current policy at the row's true successor.
    """
    goes_on = ~ended[:-1].reshape(*ended[:-1].shape, *[1] * (action.ndim - ended.ndim))
    return torch.cat([torch.where(goes_on, action[1:], drawn[:-1]), drawn[-1:]])


def standardize(advantage: Tensor) -> Tensor:
    """Advantages less their mean, over their standard deviation (ddof 1); a single one, which has none, as it is."""
    if advantage.numel() < 2:
        return advantage
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


class VTrace(NamedTuple):
    """What V-trace gives the two losses: the critic's target v_s and the policy gradient's advantage, (T, B)."""

    target: Tensor
    advantage: Tensor


def vtrace(
    *,
    reward: Tensor,
    discount: Tensor,
    value: Tensor,
    next_value: Tensor,
    log_rho: Tensor,
    lam: Tensor,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    pg_rho_bar: float | None = None,
) -> VTrace:
    """V-trace of data drawn by μ for a policy π, log_rho = log π(a|s) - log μ(a|s).

                                              Espeholt et al. 2018, equation 1, remarks 1 and 2, section 4.2

    δ_t = ρ_t (r_t + discount_t V(s'_t) - V(s_t))     ρ_t = min(ρ̄, π/μ)     c_t = lam_t min(c̄, π/μ)
    v_t = V(s_t) + δ_t + discount_t c_t (v_{t+1} - V(s'_t))
    A_t = min(ρ̄_pg, π/μ) (r_t + discount_t (V(s'_t) + lam_t (v_{t+1} - V(s'_t))) - V(s_t))

    `pg_rho_bar` defaults to `rho_bar`. Log-ratios are clamped to ±20, so that no ratio is infinite.
    """
    ratio = log_rho.clamp(-20, 20).exp()
    delta = ratio.clamp(max=rho_bar) * (reward + discount * next_value - value)
    correction = _scan(delta, discount * lam * ratio.clamp(max=c_bar))
    next_correction = torch.cat([correction[1:], torch.zeros_like(correction[-1:])])
    q = reward + discount * (next_value + lam * next_correction)
    pg_ratio = ratio.clamp(max=rho_bar if pg_rho_bar is None else pg_rho_bar)
    return VTrace(value + correction, pg_ratio * (q - value))
