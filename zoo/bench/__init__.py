"""Sweeps over entries, environments and seeds, and their report."""
