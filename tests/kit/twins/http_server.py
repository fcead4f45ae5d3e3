"""A real HTTP server on the loopback, in a thread, that answers as a test says and keeps what it was sent."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Answer", "Call", "HttpServer", "http_server"]


@dataclass(frozen=True)
class Call:
    """A request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered; `cut`: the connection is closed in the middle of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


class HttpServer:
    """The server; `answer` may be replaced at any time."""

    def __init__(self, answer: Callable[[Call], Answer]) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self.url = ""
        self._server: ThreadingHTTPServer | None = None

    @contextmanager
    def serving(self, context: ssl.SSLContext | None = None) -> Iterator[None]:
        """Serve within the block."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                parts = urlsplit(self.path)
                call = Call(
                    method=self.command,
                    path=parts.path,
                    query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                    headers={name.lower(): value for name, value in self.headers.items()},
                    body=self.rfile.read(int(self.headers.get("content-length", "0"))),
                )
                if outer._server is None:  # a connection of before
                    self.close_connection = True
                    return
                outer.calls.append(call)
                answer = outer.answer(call)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body[: len(answer.body) // 2] if answer.cut else answer.body)
                self.close_connection |= answer.cut

            do_GET = do_POST = _handle  # noqa: N815 - names of the standard library

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        server = self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.close()
            thread.join()

    def close(self) -> None:
        """Stop: nothing answers any more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


@contextmanager
def http_server(answer: Callable[[Call], Answer], context: ssl.SSLContext | None = None) -> Iterator[HttpServer]:
    """Serve within the block."""
    server = HttpServer(answer)
    with server.serving(context):
        yield server
