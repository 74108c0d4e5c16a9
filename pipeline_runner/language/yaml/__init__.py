"""Parses YAML into a tree in which every node knows its position."""
