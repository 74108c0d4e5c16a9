"""The ``file`` and ``directory`` families, and the records for their undo."""
