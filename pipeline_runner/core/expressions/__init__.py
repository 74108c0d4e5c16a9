"""Expressions: a subset of Jinja2, from the string of a template to its value."""
