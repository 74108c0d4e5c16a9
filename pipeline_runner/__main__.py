"""Run the command with ``python -m pipeline_runner``."""

from pipeline_runner.cli.main import main

main()
