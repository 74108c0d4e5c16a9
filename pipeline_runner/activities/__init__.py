"""What a step can name: the catalogue, the built-in families, and the door for plugins."""
