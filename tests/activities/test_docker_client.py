"""Output that arrives together with the headers of the Engine's answer: an Engine under load sends it so."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("docker", reason="the extra containers is not installed")

UPGRADED = (
    b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
FRAMES = b"\1\0\0\0\0\0\0\4out\n" + b"\2\0\0\0\0\0\0\4err\n" + b"\1\0\0\0\0\0\0\3end"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """An Engine that says one thing, headers and output in one packet, and closes the connection."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(64 * 1024)
                connection.sendall(UPGRADED + FRAMES)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"unix://{path}"
        thread.join(10)


def test_the_beginning_of_an_output_is_not_lost(address: str) -> None:
    from pipeline_runner.activities.docker.client import Client

    client = Client(base_url=address, version="1.41", timeout=10)
    said = list(client.exec_start("c0ffee", stream=True, demux=True))
    assert said == [(b"out\n", None), (None, b"err\n"), (b"end", None)]
