"""YAML bytes into a tree in which everything knows its position."""
