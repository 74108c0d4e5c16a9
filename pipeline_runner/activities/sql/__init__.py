"""The ``sql`` family: statements and scripts for databases."""
