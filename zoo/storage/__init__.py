"""What is written, and how a file that may be a stranger's is read."""
