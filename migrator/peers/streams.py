"""Streams: bulk data between hosts on the stream port, beside the peer API.

The caller sends one JSON line (at most 4 KiB: `kind`, `migration` and what the kind needs), the called host
checks the caller's certificate, answers one JSON line (`{}` or `{"error": ..., "code": ...}`), and from
then on the connection is raw bytes for the handler of that kind.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from migrator.command import kill_group, spawn
from migrator.errors import ExecutionError, LifeboatError, PeerError
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.tls import BUFFER_BYTES, call, peer_name, server_context, tune

HEADER_LIMIT_BYTES = 4096
HEADER_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0

Header = Mapping[str, str]
StreamHandler = Callable[[Header, ssl.SSLSocket], None]

_log = logging.getLogger(__name__)


class StreamServer:
    """Takes streams from peers, each in a thread of its own."""

    def __init__(self, handlers: Mapping[str, StreamHandler], pki: Path, address: str, port: int) -> None:
        self._handlers = handlers
        self._pki = pki
        self._listener = socket.create_server((address, port), backlog=32)
        self._stopping = False

    def start(self) -> None:
        """Begin to take streams."""
        threading.Thread(target=self._serve, name="streams", daemon=True).start()

    def stop(self) -> None:
        """Take no more streams; those at work go on."""
        self._stopping = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._welcome, args=(plain,), name="stream", daemon=True).start()

    def _welcome(self, plain: socket.socket) -> None:
        plain.settimeout(HEADER_TIMEOUT_S)
        tune(plain)
        try:
            link = server_context(self._pki).wrap_socket(plain, server_side=True)
        except OSError as error:
            _log.warning("a caller of the stream port was turned away: %s", error)
            plain.close()
            return
        with link:
            try:
                header = _read_line(link)
                handler = self._handlers.get(header.get("kind", ""))
                if handler is None:
                    raise ExecutionError(f"no such stream: {header.get('kind')!r}", code="no-such-stream")
                link.settimeout(None)
                handler({**header, "peer": peer_name(link)}, link)
            except (LifeboatError, OSError) as error:
                _log.warning("stream failed: %s", error)
                code = error.code if isinstance(error, LifeboatError) else "stream-lost"
                with suppress(OSError):
                    link.sendall(json.dumps({"error": str(error), "code": code}).encode() + b"\n")


def accept_stream(link: ssl.SSLSocket) -> None:
    """Say yes to the caller; a handler calls this when it is ready for the bytes."""
    link.sendall(b"{}\n")


def open_stream(directory: Path, peer: str, header: Header) -> ssl.SSLSocket:
    """Open a stream to a peer; raises `PeerError` with the peer's own words when it says no."""
    address, port = _stream_address(directory, peer)
    link = call(peer, address, port, directory / "pki")
    link.sendall(json.dumps(dict(header)).encode() + b"\n")
    link.settimeout(ANSWER_TIMEOUT_S)
    try:
        answer = _read_line(link)
    except OSError as error:
        link.close()
        raise PeerError(f"{peer} does not answer on its stream port", code="peer-silent") from error
    if "error" in answer:
        link.close()
        raise PeerError(f"{peer}: {answer['error']}", code=answer.get("code", "peer-failed"))
    link.settimeout(None)
    return link


def send_command_output(directory: Path, peer: str, header: Header, argv: Sequence[str], timeout_s: float) -> None:
    """Send what a program writes as a stream; the peer answers with one more line when it has used it all."""
    deadline = time.monotonic() + timeout_s
    with open_stream(directory, peer, header) as link:
        process = spawn(argv)
        try:
            while data := os.read(process.stdout.fileno(), BUFFER_BYTES) if process.stdout else b"":
                link.sendall(data)
                if time.monotonic() > deadline:
                    raise ExecutionError(f"{argv[0]} takes longer than {timeout_s:g} s", code="copy-timeout")
            if process.wait(30) != 0:
                said = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
                raise ExecutionError(f"{argv[0]} failed: {said}", code="copy-failed")
            plain = link.unwrap()
            with plain:
                plain.settimeout(max(1.0, deadline - time.monotonic()))
                answer = json.loads(plain.makefile("rb").readline() or b'{"error": "hung up"}')
        except OSError as error:
            raise PeerError(f"the stream to {peer} broke: {error}", code="stream-lost", temporary=True) from error
        finally:
            _end(process)
    if "error" in answer:
        raise PeerError(f"{peer}: {answer['error']}", code=str(answer.get("code", "peer-failed")))


def feed_command(link: ssl.SSLSocket, argv: Sequence[str], timeout_s: float) -> None:
    """Feed a stream to a program and tell the caller how that ended."""
    accept_stream(link)
    process = spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        while data := link.recv(BUFFER_BYTES):
            if process.stdin is not None:
                process.stdin.write(data)
        _, errors = process.communicate(timeout=timeout_s)
        answer = {} if process.returncode == 0 else {"error": errors.decode("utf-8", "replace").strip()}
    except BrokenPipeError:
        _, errors = process.communicate(timeout=timeout_s)
        answer = {"error": errors.decode("utf-8", "replace").strip()}
    finally:
        _end(process)
    plain = link.unwrap()
    with plain:
        plain.sendall(json.dumps(answer).encode() + b"\n")


def join_command(link: ssl.SSLSocket, argv: Sequence[str]) -> None:
    """Join a stream to a program's standard input and output, until either ends."""
    ours, theirs = socket.socketpair()
    accept_stream(link)
    process = spawn(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL)
    theirs.close()
    try:
        Relay(link, ours).run()
    except (LinkLostError, PlainEndedError):
        ours.close()
        process.wait(30)
    finally:
        _end(process)


def connect_standard_streams(directory: Path, peer: str, header: Header) -> int:
    """Be the remote end of a program that talks over our standard input and output; return an exit status."""
    try:
        link = open_stream(directory, peer, header)
    except LifeboatError as error:
        os.write(2, f"{error}\n".encode())
        return 1
    # rsync joins its remote shell by two socket pairs (fd_pair, util1.c).
    standard_input, standard_output = socket.socket(fileno=0), socket.socket(fileno=1)
    with suppress(LinkLostError, PlainEndedError):
        Relay(link, standard_input, into=standard_output).run()
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program that is still there, and give back what belongs to it."""
    kill_group(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    process.wait()


def _stream_address(directory: Path, peer: str) -> tuple[str, int]:
    """Read one peer's address; plain JSON here, for a remote shell must start fast."""
    roll = json.loads((directory / "peers.json").read_bytes())
    for entry in roll["peers"]:
        if entry["name"] == peer:
            return entry["address"], int(entry["stream_port"])
    raise PeerError(f"{peer!r} is no host of this cluster", code="unknown-peer")


def _read_line(link: ssl.SSLSocket) -> dict[str, str]:
    """Read one JSON line and not a byte more."""
    line = b""
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        if not byte or len(line) >= HEADER_LIMIT_BYTES:
            raise OSError("no header line")
        line += byte
    value = json.loads(line)
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}
