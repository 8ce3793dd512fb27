"""What algorithms are made of: targets, networks, distributions, optimisers, noise."""
