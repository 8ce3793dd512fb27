"""What a lookahead needs of a model, and what an expectation gets wrong (Wan et al. 2019)."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from zoo.errors import UserError
from zoo.parts.models import StateModel, VectorModel, candidates, lookahead
from zoo.protocol import Transition
from zoo.spec import Outcomes, Spec

S, A, K, GAMMA = 5, 3, 4, 0.9


def random_outcomes() -> Outcomes:
    g = torch.Generator().manual_seed(0)
    weights = torch.rand(S, A, K, generator=g, dtype=torch.float64)
    return Outcomes(
        next_obs=torch.randint(S, (S, A, K), generator=g),
        probability=weights / weights.sum(-1, keepdim=True),
        reward=torch.randn(S, A, K, generator=g, dtype=torch.float64),
        terminated=(torch.rand(S, A, K, generator=g) < 0.3).double(),
    )


def expectation(outcomes: Outcomes, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What an expectation model predicts: E[r], (S, A), and E[(1 - d) φ(s')], (S, A, F)."""
    alive = (outcomes.probability * (1 - outcomes.terminated))[..., None]
    return (outcomes.probability * outcomes.reward).sum(-1), (alive * features[outcomes.next_obs]).sum(-2)


def test_an_expectation_is_enough_where_v_is_linear_in_one_hot_states() -> None:
    outcomes, v = random_outcomes(), torch.randn(S, dtype=torch.float64)
    reward, mean = expectation(outcomes, torch.eye(S, dtype=torch.float64))
    exact = lookahead(outcomes, v[outcomes.next_obs], GAMMA)
    assert (reward + GAMMA * mean @ v - exact).abs().max() < 1e-8
    without = (outcomes.probability[..., None] * torch.eye(S, dtype=torch.float64)[outcomes.next_obs]).sum(-2)
    assert (reward + GAMMA * without @ v - exact).abs().max() > 0.01  # the end forgotten: E[φ(s')]


def test_an_expectation_misleads_where_v_is_nonlinear_in_what_it_predicts() -> None:
    """To the left or to the right by chance, or not at all: V is large on both sides, and 0 where the mean is."""
    outcomes = Outcomes(
        next_obs=torch.tensor([[[-1.0, 1.0], [0.1, 0.1]]]),
        probability=torch.full((1, 2, 2), 0.5),
        reward=torch.zeros(1, 2, 2),
        terminated=torch.zeros(1, 2, 2),
    )
    distribution = lookahead(outcomes, outcomes.next_obs.square(), GAMMA)
    of_the_mean = GAMMA * (outcomes.probability * outcomes.next_obs).sum(-1).square()
    assert distribution.argmax(-1).item() == 0
    assert of_the_mean.argmax(-1).item() == 1


def fit(model: VectorModel | StateModel, rows: Transition[torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(rows).backward()
        optimizer.step()


def transitions(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> Transition[torch.Tensor]:
    flags = torch.zeros(len(obs), dtype=torch.bool)
    return Transition(obs, action, action.float(), next_obs, flags, flags, torch.zeros(len(obs)))


@pytest.mark.parametrize(("draws", "spread"), [(0, 0.0), (50, 0.5)])
def test_draws_are_as_wide_as_the_noise_and_means_are_not(draws: int, spread: float) -> None:
    spec = Spec(spaces.Box(-9, 9, (1,)), spaces.Discrete(2))
    g = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    model = VectorModel(spec, candidates(spec, 2), (16,), g, size=2, draws=draws)
    action = torch.randint(2, (2000,), generator=g)
    obs = torch.randn(2000, 1, generator=g)
    fit(model, transitions(obs, action, obs + action[:, None] + 0.5 * torch.randn(2000, 1, generator=g)), 300)
    with torch.no_grad():
        outcomes = model(torch.zeros(1, 1))
    assert outcomes.next_obs[0, :, :, 0].mean(-1).numpy() == pytest.approx([0, 1], abs=0.15)
    assert outcomes.reward[0].mean(-1).numpy() == pytest.approx([0, 1], abs=0.1)
    assert outcomes.next_obs[0, :, :, 0].std(-1).numpy() == pytest.approx([spread, spread], abs=0.12)


def test_the_distribution_over_states_is_learned_together_with_the_end() -> None:
    spec = Spec(spaces.Discrete(4), spaces.Discrete(2))
    torch.manual_seed(2)
    model = StateModel(spec, candidates(spec, 2), (16,), size=1)
    g = torch.Generator().manual_seed(2)
    action, chance = torch.randint(2, (4000,), generator=g), torch.rand(4000, generator=g)
    next_obs = torch.where(chance < 0.25, 3, 1)
    rows = transitions(torch.zeros(4000, dtype=torch.long), action, next_obs)._replace(terminated=next_obs == 3)
    fit(model, rows, 300)
    with torch.no_grad():
        outcomes = model(torch.zeros(1, dtype=torch.long))
    ended = (outcomes.probability * outcomes.terminated).sum(-1)
    assert ended[0].numpy() == pytest.approx([0.25, 0.25], abs=0.03)
    assert np.unique(outcomes.next_obs[outcomes.probability > 0.1]).tolist() == [1, 3]


def test_candidates_are_all_choices_or_a_grid_within_the_bounds() -> None:
    assert candidates(Spec(spaces.Box(0, 1, (1,)), spaces.Discrete(3, start=2)), 5).tolist() == [0, 1, 2]
    grid = candidates(Spec(spaces.Box(0, 1, (1,)), spaces.Box(-2, 2, (2,))), 3)
    assert sorted(map(tuple, grid.tolist())) == [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    with pytest.raises(UserError, match="more than 1,000"):
        candidates(Spec(spaces.Box(0, 1, (1,)), spaces.Box(-2, 2, (4,))), 11)
    with pytest.raises(UserError, match="no bounds"):
        candidates(Spec(spaces.Box(0, 1, (1,)), spaces.Box(-np.inf, np.inf, (1,))), 11)
