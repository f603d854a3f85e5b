"""Key to value: memory, disk, tree."""
