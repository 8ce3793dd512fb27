"""Learning from experience, evaluating, and compiling updates."""
