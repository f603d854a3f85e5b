"""Key to value: memory, disk, tree.

Nothing is imported here: whoever only makes a key (`keys`) should not wait for Arrow.
"""
