"""A small TCP proxy on 127.0.0.1 that can cut connections or let all packets disappear."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
import termios
import threading
import time
from array import array
from types import TracebackType
from typing import Self

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_DROP = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # one BPF instruction: ret 0
_PROGRAM = struct.pack("@HP", 1, ctypes.addressof(_DROP))


class Proxy:
    """Forwards connections to a port of this machine.

    As a black hole its kernel drops every packet that comes for its sockets, before TCP sees
    it: nothing is acknowledged, neither data nor keepalives nor new connections.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._mutex = threading.Lock()
        self._hole = False
        self._closed = False
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port to connect to."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self.heal()
        self._listener.close()
        self.reset()
        self._thread.join(5)

    def _accept(self) -> None:
        self._listener.settimeout(0.2)
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to_port), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            near.settimeout(None)
            pair = (near, far)
            with self._mutex:
                self.accepted += 1
                self._pairs.add(pair)
            for a, b in (pair, (far, near)):
                threading.Thread(target=self._pump, args=(a, b, pair), daemon=True).start()

    def _pump(self, a: socket.socket, b: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                while self._hole and pair in self._pairs:
                    time.sleep(0.05)
                b.sendall(data)
        self._drop(pair, reset=False)

    def _drop(self, pair: tuple[socket.socket, socket.socket], *, reset: bool) -> None:
        with self._mutex:
            if pair not in self._pairs:
                return
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    end.shutdown(socket.SHUT_RDWR)
            end.close()

    def reset(self) -> None:
        """Break every connection with a TCP reset."""
        for pair in list(self._pairs):
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            self._drop(pair, reset=True)

    def _unsent(self) -> int:
        """Return how many bytes the kernel still has to send, or to be told that they have arrived."""
        total = 0
        for pair in list(self._pairs):
            for end in pair:
                waiting = array("i", [0])
                with contextlib.suppress(OSError):
                    fcntl.ioctl(end, termios.TIOCOUTQ, waiting)
                total += waiting[0]
        return total

    def black_hole(self) -> None:
        """Let every packet disappear from now on, in both directions."""
        self._hole = True
        # What is under way arrives first: the filter is for packets that come in, and what was
        # not acknowledged would be sent again and again, which is a sign of life.
        deadline, quiet = time.monotonic() + 20, 0
        while quiet < 3 and time.monotonic() < deadline:
            quiet = quiet + 1 if self._unsent() == 0 else 0
            time.sleep(0.05)
        for end in (self._listener, *(end for pair in list(self._pairs) for end in pair)):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM)

    def heal(self) -> None:
        """Let packets through again; the connections of before stay dead."""
        if not self._hole:
            return
        for pair in list(self._pairs):
            with self._mutex:
                self._pairs.discard(pair)
            for end in pair:
                end.close()
        with contextlib.suppress(OSError):
            self._listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, b"\0\0\0\0")
        self._hole = False
