"""The ``file`` and ``directory`` families, and what they keep for undos."""
