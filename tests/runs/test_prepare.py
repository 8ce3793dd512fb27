"""What a run is given: a seed is drawn where none is set."""

from zoo import runs


def test_no_seed_is_not_seed_zero_and_is_recorded() -> None:
    settings = [runs.prepare("ppo", "CartPole-v1", {}, source="argument") for _ in range(2)]
    assert settings[0].run.seed != settings[1].run.seed
    assert runs.prepare("ppo", "CartPole-v1", {"seed": 0}, source="argument").run.seed == 0
