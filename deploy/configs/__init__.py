"""YAML of the entry points of `deploy`, and the group `source` that names camera sources."""
