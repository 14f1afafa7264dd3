"""Carry bytes between a TLS link and a plain socket, both ways, in one thread.

One thread on purpose: an OpenSSL connection must not be read and written by two threads at once.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import defaultdict
from collections.abc import Callable

from migrator.peers.tls import BUFFER_BYTES

HELD_POLL_MS = 1  # how soon a relay notices that it is held no longer

Filter = Callable[[bytes], bytes]


class LinkLostError(Exception):
    """The other host is gone, or hung up."""


class PlainEndedError(Exception):
    """The local program hung up."""


class Relay:
    """Carries bytes until one side ends; says which by the exception it raises."""

    def __init__(
        self,
        link: ssl.SSLSocket,
        plain: socket.socket,
        *,
        into: socket.socket | None = None,
        keep: Filter | None = None,
    ) -> None:
        """Join `link` to `plain`; what comes from the link goes to `into` where that is another socket.

        `keep` sees what the local program sends and returns what of it may leave.
        """
        self._link = link
        self._plain = plain
        self._into = into or plain
        self._keep = keep
        self._to_link = memoryview(b"")
        self._to_plain = memoryview(b"")
        self._buffer = bytearray(BUFFER_BYTES)
        self.received_bytes = 0
        self.sent_bytes = 0
        self.held = False  # while true nothing is taken from the link; may be set from another thread
        link.setblocking(False)
        plain.setblocking(False)
        self._into.setblocking(False)

    def run(self) -> None:
        """Carry until an end; always raises `LinkLostError` or `PlainEndedError`."""
        while True:
            self._wait()
            self._from_plain()
            self._into_link()
            self._from_link()
            self._into_plain()

    def _wait(self) -> None:
        closed = self.held or bool(self._to_plain)
        wanted: dict[socket.socket, int] = defaultdict(int)
        if not closed:
            wanted[self._link] |= select.POLLIN
        if not self._to_link:
            wanted[self._plain] |= select.POLLIN
        if self._to_link:
            wanted[self._link] |= select.POLLOUT
        if self._to_plain:
            wanted[self._into] |= select.POLLOUT
        look = select.poll()  # select takes no descriptor above 1023
        for waiting, events in wanted.items():
            look.register(waiting, events)
        look.poll(0 if self._link.pending() and not closed else HELD_POLL_MS if self.held else None)

    def _from_plain(self) -> None:
        if self._to_link:
            return
        try:
            count = self._plain.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            raise PlainEndedError(str(error)) from error
        if not count:
            raise PlainEndedError("hung up")
        data = bytes(memoryview(self._buffer)[:count])
        self._to_link = memoryview(self._keep(data) if self._keep else data)

    def _into_link(self) -> None:
        while self._to_link:
            try:
                sent = self._link.send(self._to_link)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise LinkLostError(str(error)) from error
            self.sent_bytes += sent
            self._to_link = self._to_link[sent:]

    def _from_link(self) -> None:
        if self._to_plain or self.held:
            return
        try:
            data = self._link.recv(BUFFER_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            raise LinkLostError(str(error)) from error
        if not data:
            raise LinkLostError("hung up")
        self.received_bytes += len(data)
        self._to_plain = memoryview(data)

    def _into_plain(self) -> None:
        while self._to_plain:
            try:
                sent = self._into.send(self._to_plain)
            except BlockingIOError:
                return
            except OSError as error:
                raise PlainEndedError(str(error)) from error
            self._to_plain = self._to_plain[sent:]
