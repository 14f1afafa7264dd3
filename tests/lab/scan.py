"""Runs on the lab's network, outside all hosts: which ports of a host are open, and what do they tell a stranger?

    python scan.py ADDRESS CERTIFICATE    CERTIFICATE: a file with a key and a certificate of another authority

Prints JSON: port -> the bytes, in hexadecimal, that came back for each thing said, above TLS if there was one.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

AT_ONCE = 512
CONNECT_S, ANSWER_S = 3.0, 4.0
REQUEST = b"GET /v1/facts HTTP/1.1\r\nHost: x\r\n\r\n"
SAID = {
    "nothing": b"",
    "http": REQUEST,
    "stream": b'{"kind": "rsync", "migration": "a", "tree": "layer", "command": "rsync"}\n',
    "greeting": b"lifeboat-pager/2 a faults".ljust(64),
    "noise": bytes(range(256)) * 8,
}


async def open_ports(address: str) -> list[int]:
    """Return the TCP ports that take connections."""
    gate = asyncio.Semaphore(AT_ONCE)
    found = []

    async def knock(port: int) -> None:
        async with gate:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_S)
            except (OSError, TimeoutError):
                return
            found.append(port)
            writer.close()

    await asyncio.gather(*(knock(port) for port in range(1, 65536)))
    return sorted(found)


def answer(address: str, port: int, said: bytes, context: ssl.SSLContext | None) -> bytes:
    """Say something and return what comes back."""
    try:
        connection: socket.socket = socket.create_connection((address, port), timeout=ANSWER_S)
        with connection:
            if context is not None:
                connection = context.wrap_socket(connection)
            connection.sendall(said)
            return connection.recv(4096)
    except OSError:
        return b""


def contexts(certificate: str) -> dict[str, ssl.SSLContext | None]:
    """Return no TLS, TLS without a certificate, and TLS with one of a stranger."""
    found: dict[str, ssl.SSLContext | None] = {"plain": None}
    for name in ("tls", "foreign"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if name == "foreign":
            context.load_cert_chain(certificate)
        found[name] = context
    return found


def main() -> None:
    """Scan one host."""
    address, certificate = sys.argv[1:]
    words = [(f"{kind} {name}", context, said)
             for kind, context in contexts(certificate).items() for name, said in SAID.items()]  # fmt: skip
    ports = asyncio.run(open_ports(address))
    with ThreadPoolExecutor(AT_ONCE) as workers:
        asked = {
            port: {what: workers.submit(answer, address, port, said, context) for what, context, said in words}
            for port in ports
        }
        told = {
            port: {what: found.result().hex() for what, found in answers.items()} for port, answers in asked.items()
        }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
