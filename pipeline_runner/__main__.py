"""The first lines of the program: ``run-pipeline``, and ``python -m pipeline_runner``.

A signal while the rest of the command is imported ends the command at once, with a message. Python
would raise KeyboardInterrupt somewhere within an import.
"""

import os
import signal
from typing import NoReturn


def _leave(*_: object) -> NoReturn:
    os.write(2, b"interrupted: nothing was started\n")
    os._exit(130)


def main() -> NoReturn:
    """Run as a program. The command later installs its own signal handlers."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored on purpose
        signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from pipeline_runner.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
