"""When vector environments reset what ended."""

from typing import Any

from gymnasium.vector import AutoresetMode, VectorEnv


def autoreset_mode(vector: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """When a vector environment resets what ended: gymnasium's default where it does not say."""
    return AutoresetMode(vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
