"""YAML for `forcing-train`, beside the entry point that reads it."""
