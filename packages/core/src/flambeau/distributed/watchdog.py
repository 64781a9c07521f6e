"""Heartbeats: a rank that dies or falls silent ends the job on all ranks, with its number and the reason.

Every rank holds a TCP connection to rank 0 and sends a line now and then; rank 0 looks who has gone. The connections
are beside those of MPI, so they work while the main threads compute, wait or hang.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..errors import EXIT_FAILURE

__all__ = ["Watchdog"]

_BEAT, _BYE, _FAIL = b"b", b"q", b"f"


class Watchdog:
    """One thread a rank.

    Args:
        backend: its `started` (collectives begun) goes along with each heartbeat, and its `abort` ends the job.
        timeout: seconds of silence after which a rank counts as lost.
    """

    def __init__(self, backend: Any, timeout: float) -> None:
        self._backend, self._timeout = backend, timeout
        self._every = max(0.05, min(5.0, timeout / 8))
        self._rank, self._size = backend.rank, backend.size
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._spoken = False
        hosts = backend.gather_objects(socket.gethostname())
        local = len(set(hosts)) == 1
        key = os.urandom(16).hex()
        if self._rank == 0:
            server = socket.create_server(("127.0.0.1" if local else "", 0), backlog=max(16, self._size))
            address = "127.0.0.1" if local else os.environ.get("MASTER_ADDR", hosts[0])
            host, port, key = backend.broadcast_object((address, server.getsockname()[1], key), 0)
            self._server = _Server(self, server, key)
            target: Callable[[], None] = self._server.run
            self._link: socket.socket | None = None
        else:
            host, port, key = backend.broadcast_object(None, 0)
            self._link = socket.create_connection((host, port), timeout=timeout)
            self._link.settimeout(timeout)
            self._send(f"{key} {self._rank}\n".encode())
            target = self._follow
        self._thread = threading.Thread(target=target, name="flambeau-watchdog", daemon=True)
        self._thread.start()

    # -- every rank ----------------------------------------------------------------------------------------------
    def report(self, reason: str) -> None:
        """This rank cannot go on: rank 0 tells it, and the job ends."""
        if self._rank == 0 or self._link is None:
            self._server.fail(reason, 0)
            return
        try:
            self._send(_FAIL + b" " + reason.replace("\n", " ").encode() + b"\n")
            time.sleep(2 * self._every + 1)  # rank 0 ends the job meanwhile
        except OSError:
            pass
        self.end(reason)

    def say(self, reason: str) -> None:
        """Prints why the job ends, once."""
        with self._lock:
            if self._spoken:
                return
            self._spoken = True
            text = f"error: {reason}; the job ends\n  mend: go on from the newest checkpoint (resume)\n"
            os.write(2, text.encode())
            time.sleep(0.2)  # the launcher passes it on, but not after an abort

    def end(self, reason: str, speak: bool = True) -> None:
        """Prints the reason and ends all processes of the job."""
        if speak:
            self.say(reason)
        # Should MPI be stuck, the process ends all the same, and with it its launcher's other processes.
        timer = threading.Timer(3.0, os._exit, (EXIT_FAILURE,))
        timer.daemon = True
        timer.start()
        self._backend.abort(EXIT_FAILURE)
        os._exit(EXIT_FAILURE)

    def close(self) -> None:
        """Says goodbye: the end of this process is no failure."""
        self._closing.set()
        if self._link is not None:
            try:
                self._send(_BYE + b"\n")
            except OSError:
                pass
        self._thread.join(self._timeout)
        if self._link is not None:
            self._link.close()

    def _send(self, data: bytes) -> None:
        assert self._link is not None
        self._link.sendall(data)

    # -- ranks above 0 -------------------------------------------------------------------------------------------
    def _follow(self) -> None:
        """Sends heartbeats and listens for rank 0."""
        link = self._link
        assert link is not None
        link.settimeout(self._every / 2)
        heard, sent, buffer = time.monotonic(), 0.0, b""
        while not self._closing.is_set():
            try:
                if time.monotonic() - sent > self._every / 2:
                    sent = time.monotonic()
                    self._send(_BEAT + f" {self._backend.started}\n".encode())
                data = link.recv(4096)  # returns at once when rank 0 has gone
            except TimeoutError:
                data = None  # type: ignore[assignment]
            except OSError:
                data = b""
            if self._closing.is_set():
                return
            now = time.monotonic()
            if data == b"":
                self._rank_0_lost("has ended without a word (killed, or out of memory?)")
            elif data:
                heard, buffer = now, buffer + data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    if line.startswith(_FAIL):
                        self.end(line[2:].decode(), speak=False)
                    if line.startswith(_BYE):
                        return
            elif now - heard > self._timeout:
                self._rank_0_lost(f"has been silent for {now - heard:.0f} s (stopped or unreachable)")

    def _rank_0_lost(self, how: str) -> None:
        if self._rank != 1:  # all see it; one speaks first
            time.sleep(min(2.0, self._timeout))
        self.end(f"rank 0 {how}", speak=self._rank == 1)


class _Server:
    """Rank 0's side."""

    def __init__(self, dog: Watchdog, server: socket.socket, key: str) -> None:
        self._dog, self._server, self._key = dog, server, key
        self._heard: dict[int, float] = {}
        self._begun: dict[int, int] = {}
        self._links: dict[int, socket.socket] = {}
        self._buffers: dict[socket.socket, bytes] = {}

    def run(self) -> None:
        dog = self._dog
        selector = selectors.DefaultSelector()
        self._server.setblocking(False)
        selector.register(self._server, selectors.EVENT_READ)
        began, beat = time.monotonic(), 0.0
        left: set[int] = set()
        while not (dog._closing.is_set() and len(left) >= dog._size - 1):
            for key, _ in selector.select(dog._every / 2):
                if key.fileobj is self._server:
                    link, _ = self._server.accept()
                    link.setblocking(False)
                    self._buffers[link] = b""
                    selector.register(link, selectors.EVENT_READ)
                    continue
                gone = self._read(key.fileobj, left)
                if gone:
                    selector.unregister(key.fileobj)
            now = time.monotonic()
            if now - beat > dog._every:
                beat = now
                self._tell(_BEAT + b"\n")
            for rank in range(1, dog._size):
                silent = now - self._heard.get(rank, began)
                if rank not in left and silent > dog._timeout:
                    if dog._closing.is_set():
                        return
                    self._end(f"rank {rank} has been silent for {silent:.0f} s (stopped or unreachable)")
        self._tell(_BYE + b"\n")
        for link in self._buffers:
            link.close()
        self._server.close()

    def _read(self, link: Any, left: set[int]) -> bool:
        """Reads from a rank; whether its connection has ended."""
        try:
            data = link.recv(4096)
        except OSError:
            data = b""
        rank = next((r for r, held in self._links.items() if held is link), None)
        if not data:
            if rank is not None and rank not in left:
                self._end(f"rank {rank} has ended without a word (killed, or out of memory?)")
            return True
        *lines, self._buffers[link] = (self._buffers[link] + data).split(b"\n")
        for line in lines:
            if rank is None:
                key, _, number = line.decode().partition(" ")
                if key != self._key or not number.isdigit():  # a stranger
                    link.close()
                    return True
                rank = int(number)
                self._links[rank] = link
                self._heard[rank] = time.monotonic()
                continue
            self._heard[rank] = time.monotonic()
            if line.startswith(_BYE):
                left.add(rank)
            elif line.startswith(_BEAT):
                self._begun[rank] = int(line[2:] or 0)
            elif line.startswith(_FAIL):
                self.fail(line[2:].decode(), rank)
        return False

    def fail(self, reason: str, rank: int) -> None:
        """Ends the job because of what `rank` says; of a wait it tells who is waited for."""
        begun = {**self._begun, 0: self._dog._backend.started}
        if " waited " in reason and (least := min(begun.values())) < max(begun.values()):
            late = [str(r) for r, n in sorted(begun.items()) if n == least]
            reason += (
                f"; behind is rank {', '.join(late)}, which has begun {least} collectives, the first {begun[rank]}"
            )
        self._end(reason)

    def _tell(self, data: bytes) -> None:
        for link in list(self._links.values()):
            try:
                link.send(data)
            except OSError:
                pass

    def _end(self, reason: str) -> None:
        self._dog.say(reason)  # before the others are told: they end the job at once
        self._tell(_FAIL + b" " + reason.encode() + b"\n")
        self._dog.end(reason)


def install_excepthook(backend: Any, watchdog: Callable[[], Watchdog | None]) -> Callable[[], None]:
    """An exception that nothing catches ends the job; returns the function that undoes this."""
    previous = sys.excepthook

    def hook(kind: Any, value: Any, trace: Any) -> None:
        previous(kind, value, trace)
        sys.stderr.flush()
        dog = watchdog()
        reason = f"rank {backend.rank} failed: {kind.__name__}: {' '.join(str(value).split())}"
        if dog is None:
            backend.abort(EXIT_FAILURE)
        else:
            dog.report(reason)

    sys.excepthook = hook

    def undo() -> None:
        if sys.excepthook is hook:
            sys.excepthook = previous

    return undo
