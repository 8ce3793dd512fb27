"""The only place that knows private names of torch."""
