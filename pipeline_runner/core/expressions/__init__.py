"""Expressions: Jinja2 cut down to the language, from the text of a template to its value."""
