"""A link to PostgreSQL that can stand still: a proxy between two Unix sockets."""

import contextlib
import socket
import threading
import time
from pathlib import Path

TO_SERVER, TO_CLIENT = "to the server", "to the client"


class SlowLink:
    """Listens in *folder* and passes everything on to the server's socket, as late as it is told to.

    Bytes that are on their way while the link stands still arrive when it goes on, in order and complete: what a
    stalled switch or a paused host does, not what a cut cable does.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        self.folder = folder
        self._server = server / ".s.PGSQL.5432"
        self._until = {TO_SERVER: 0.0, TO_CLIENT: 0.0}
        self._aimed: tuple[str, float, threading.Event] | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, direction: str, seconds: float) -> None:
        """Let nothing pass in this direction for so long, from now on."""
        self._until[direction] = time.monotonic() + seconds

    def aim(self, direction: str, seconds: float) -> threading.Event:
        """Stand still from the next commit of a release on: of a transaction that has locked a grant FOR SHARE.

        Returns:
            What is set when it has happened.
        """
        self._aimed = (direction, seconds, threading.Event())
        return self._aimed[2]

    def stalled(self) -> float:
        """Return the seconds until everything passes again."""
        return max(0.0, max(self._until.values()) - time.monotonic())

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:
                client.close()
                server.close()
                continue
            self._ends += [client, server]
            threading.Thread(target=self._pump, args=(client, server, TO_SERVER), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, TO_CLIENT), daemon=True).start()

    def _hit(self) -> None:
        aimed, self._aimed = self._aimed, None
        if aimed is not None:
            self.stall(aimed[0], aimed[1])
            aimed[2].set()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        sharing = False
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if direction == TO_SERVER:
                    sharing = sharing or b"FOR SHARE" in data
                    # With the end of the text: a level of isolation is called READ COMMITTED.
                    if sharing and (b"COMMIT\0" in data or b"ROLLBACK\0" in data):
                        sharing = False
                        if b"COMMIT\0" in data:
                            self._hit()
                while (left := self._until[direction] - time.monotonic()) > 0:
                    time.sleep(left)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
