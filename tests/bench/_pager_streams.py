"""What plain programs move between two hosts of the lab: the measure of what the pager could do at best."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from statistics import median

from migrator.errors import ExecutionError
from tests.lab import drain
from tests.lab.lab import Lab

PORT = 7600
CHUNK_BYTES = 1 << 20
KINDS = {
    "tcp": "one TCP stream, Python",
    "tcp, kept": "the same, kept in new memory",
    "tls": "one TLS stream, Python",
    "tls, kept": "the same, kept in new memory",
}
"""What is sent: thrown away, or put where a container's memory has to be put, into pages nobody had before."""

PROGRAM = f"""\
import json, mmap, socket, ssl, sys, time
role, address, kind, mib = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
tls, kept = kind.startswith("tls"), kind.endswith("kept")
pki = "/etc/lifeboat/pki/"
buffer = memoryview(bytearray({CHUNK_BYTES}))
memory = memoryview(mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)) if kept else None
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "send" else ssl.PROTOCOL_TLS_SERVER)
context.load_verify_locations(pki + "ca.crt")
context.load_cert_chain(pki + "host.pem")
if role == "receive":
    with socket.create_server(("0.0.0.0", {PORT})) as listener:
        print("ready", flush=True)
        link, _ = listener.accept()
    link = context.wrap_socket(link, server_side=True) if tls else link
    began, count = time.monotonic(), 0
    while got := link.recv_into(memory[count:count + {CHUNK_BYTES}] if kept and count < len(memory) else buffer):
        count += got
    print(json.dumps({{"bytes": count, "seconds": time.monotonic() - began}}))
else:
    link = socket.create_connection((address, {PORT}))
    link = context.wrap_socket(link, server_hostname="beta") if tls else link
    for _ in range(mib):
        link.sendall(buffer)
    link.shutdown(socket.SHUT_WR)
    while link.recv(1 << 16):  # TLS's tickets: a socket that is closed over unread data is reset
        pass
"""


BURST = ("burst", "2mb", "latency", "20ms")
"""Of a narrowed link: a few of the largest packets that leave a host in one piece, and a switch's usual buffer."""


def stream_rates(lab: Lab, mib: int, runs: int, kinds: Iterable[str] = KINDS) -> dict[str, float]:
    """Return the median rates of one stream (10^6 bytes per second), by KINDS."""
    drain.prepare(lab)
    return {kind: median(_rate(lab, kind, mib) for _ in range(runs)) for kind in kinds}


@contextmanager
def narrowed(lab: Lab, gbit_s: int) -> Iterator[None]:
    """Let what each host sends pass no faster (a token bucket, tc-tbf(8))."""
    for host in lab.hosts.values():
        host.run(["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{gbit_s}gbit", *BURST])
    try:
        yield
    finally:
        for host in lab.hosts.values():
            host.run(["tc", "qdisc", "delete", "dev", "eth0", "root"])


def _rate(lab: Lab, kind: str, mib: int) -> float:
    alpha, beta = lab.host("alpha"), lab.host("beta")
    arguments = [beta.address, kind, str(mib)]
    receiver = beta.spawn(["python3", "-c", PROGRAM, "receive", *arguments], stderr=subprocess.DEVNULL)
    assert receiver.stdout is not None
    if receiver.stdout.readline().strip() != b"ready":
        raise ExecutionError("the stream's receiver does not start", code="bench-stream")
    alpha.run(["python3", "-c", PROGRAM, "send", *arguments], timeout_s=120)
    found = json.loads(receiver.communicate(timeout=60)[0])
    rate = found["bytes"] / found["seconds"] / 1e6
    print(f"  {kind}: {rate:.0f} MB/s", flush=True)
    return float(rate)
