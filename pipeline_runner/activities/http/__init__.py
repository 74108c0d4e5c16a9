"""The ``http`` family: requests and downloads."""
