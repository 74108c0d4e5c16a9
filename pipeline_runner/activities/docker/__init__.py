"""The ``container``, ``image``, ``network`` and ``volume`` families."""
