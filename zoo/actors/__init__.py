"""Who acts: this process, others of this machine, or a Ray cluster."""
