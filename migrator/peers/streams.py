"""Streams: bulk data between hosts on the stream port, beside the peer API.

The caller sends one JSON line (at most 4 KiB: `kind`, `migration` and what the kind needs), the called host
checks the caller's certificate, answers one JSON line (`{}` or `{"error": ..., "code": ...}`), and from
then on the connection is raw bytes for the handler of that kind (migrator.peers.stream_server).
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from migrator.command import give_up, spawn
from migrator.errors import ExecutionError, LifeboatError, PeerError
from migrator.peers.identity import PEERS
from migrator.peers.relay import LinkLostError, PlainEndedError, Relay
from migrator.peers.tls import BUFFER_BYTES, call
from migrator.words import printable

HEADER_LIMIT_BYTES = 4096
ANSWER_TIMEOUT_S = 30.0
PART = struct.Struct(">I")
"""What a program writes goes in parts of a stated length; one of no length ends it, and the answer follows."""

Header = Mapping[str, str]


def open_stream(directory: Path, peer: str, header: Header) -> ssl.SSLSocket:
    """Open a stream to a peer; raises `PeerError` with the peer's own words when it says no."""
    address, port = _stream_address(directory, peer)
    link = call(peer, address, port, directory / "pki")
    link.sendall(json.dumps(dict(header)).encode() + b"\n")
    try:
        answer = read_line(link, ANSWER_TIMEOUT_S)
    except OSError as error:
        link.close()
        raise PeerError(f"{peer} does not answer on its stream port", code="peer-silent") from error
    if "error" in answer:
        link.close()
        raise PeerError(f"{peer}: {printable(answer['error'])}", code=printable(answer.get("code", "peer-failed")))
    link.settimeout(None)
    return link


def send_command_output(
    directory: Path,
    peer: str,
    header: Header,
    argv: Sequence[str],
    timeout_s: float,
    *,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """Send what a program writes as a stream; the peer answers with one more line when it has used it all.

    `go_on` is called now and then; what it raises ends the stream.
    """
    deadline = time.monotonic() + timeout_s
    with open_stream(directory, peer, header) as link:
        process = spawn(argv)
        try:
            while data := os.read(process.stdout.fileno(), BUFFER_BYTES) if process.stdout else b"":
                go_on()
                link.sendall(PART.pack(len(data)) + data)
                if time.monotonic() > deadline:
                    raise ExecutionError(f"{argv[0]} takes longer than {timeout_s:g} s", code="copy-timeout")
            if process.wait(30) != 0:
                said = process.stderr.read().decode("utf-8", "replace").strip() if process.stderr else ""
                raise ExecutionError(f"{argv[0]} failed: {said}", code="copy-failed")
            link.sendall(PART.pack(0))
            answer = read_line(link, max(1.0, deadline - time.monotonic()))
        except OSError as error:
            raise PeerError(f"the stream to {peer} broke: {error}", code="stream-lost", temporary=True) from error
        finally:
            give_up(process)
    if "error" in answer:
        raise PeerError(f"{peer}: {printable(answer['error'])}", code=printable(answer.get("code", "peer-failed")))


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


def _stream_address(directory: Path, peer: str) -> tuple[str, int]:
    """Read one peer's address; plain JSON here, for a remote shell must start fast."""
    roll = json.loads((directory / PEERS).read_bytes())["roll"]
    for entry in roll["peers"]:
        if entry["name"] == peer:
            return entry["address"], int(entry["stream_port"])
    raise PeerError(f"{peer!r} is no host of this cluster", code="unknown-peer")


def read_line(link: ssl.SSLSocket, timeout_s: float) -> dict[str, str]:
    """Read one JSON line and not a byte more; raises `OSError` when none comes within `timeout_s` in all."""
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        link.settimeout(max(0.001, deadline - time.monotonic()))
        byte = link.recv(1)
        if not byte or len(line) >= HEADER_LIMIT_BYTES:
            raise OSError("no header line")
        line += byte
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OSError("the header line is not JSON") from error
    return {str(key): str(item) for key, item in value.items()} if isinstance(value, dict) else {}
