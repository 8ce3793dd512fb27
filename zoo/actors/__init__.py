"""Who acts elsewhere: other processes of this machine, or a Ray cluster (zoo.training.loop acts in this one)."""
