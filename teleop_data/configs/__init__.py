"""YAML of the entry points of `teleop_data`."""
