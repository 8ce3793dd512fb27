"""Agents, state, tensors and JSON in files, which may be a stranger's."""
