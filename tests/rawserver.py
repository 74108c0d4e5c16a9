"""A web server that says, byte by byte, what a test wants, and notes who asked what on which connection."""

import socket
import threading
from collections.abc import Callable
from typing import Self

Answer = Callable[["Connection", bytes], bytes | None]
"""Gets the head of a request and returns what to send; None: close the connection without a word."""


class Connection:
    """One connection of a client."""

    def __init__(self, number: int, stream: socket.socket) -> None:
        self.number = number
        self.stream = stream
        self.requests = 0


class RawServer:
    """Answers on connections that are kept, each in a thread of its own."""

    def __init__(self, answer: Answer, greet: Callable[[Connection], None] = lambda _: None) -> None:
        self.answer, self.greet = answer, greet
        self.seen: list[tuple[int, str, dict[str, str], bytes]] = []
        """Number of the connection, request line, headers, body."""
        self.opened = 0
        self.closed = threading.Semaphore(0)
        """Released once for each connection that has ended."""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._streams: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads[0].join()
        for stream in self._streams:
            stream.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listening.accept()
            except OSError:
                return
            self.opened += 1
            stream.settimeout(20)
            self._streams.append(stream)
            thread = threading.Thread(target=self._serve, args=(Connection(self.opened, stream),))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            self.greet(connection)
            while (answer := self._read(connection)) is not None:
                connection.stream.sendall(answer)
                if b"\r\nConnection: close\r\n" in answer:
                    break
        except OSError:
            pass  # the client has what it wants
        finally:
            connection.stream.close()
            self.closed.release()

    def _read(self, connection: Connection) -> bytes | None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.stream.recv(65536)):
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.stream.recv(65536)
        connection.requests += 1
        self.seen.append((connection.number, line, headers, body))
        return self.answer(connection, head)


def ok(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer with a length."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
