"""The program's first lines: ``run-pipeline``, and ``python -m pipeline_runner``.

A signal that comes while the rest of the command is imported ends it at once, and in words. Python would
raise KeyboardInterrupt somewhere within an import.
"""

import os
import signal
from typing import NoReturn


def _leave(*_: object) -> NoReturn:
    os.write(2, b"interrupted: nothing was started\n")
    os._exit(130)


def main() -> NoReturn:
    """Run as a program; its own handlers replace these."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored on purpose
        signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from pipeline_runner.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
