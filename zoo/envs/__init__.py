"""Environments: found by name, made, stepped together, and whitened."""
