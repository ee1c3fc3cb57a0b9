"""YAML of the entry points of `sim`, and the group `task` that names its environments."""
