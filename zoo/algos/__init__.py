"""One final class per file, each read top to bottom; nothing is imported until an algorithm is asked for."""
