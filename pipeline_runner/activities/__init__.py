"""Everything that a step can call: the catalogue, the built-in families, and modules of activities."""
