"""What the library for CRIU answers in the kernel's place needs namespaces and mounts: for root only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from migrator.runtime import hasten

pytestmark = pytest.mark.real

DUMPING = """
import os, socket, struct
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
for table in (0x101, 0x201):
    link.sendmsg([struct.pack("=IHHIIBBH", 20, table, 0x301, 7, 0, 0, 0, 0)])
    length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", link.recvmsg(4096)[0])
    print(length, kind, flags, sequence)
"""
"""The two questions of criu/net.c (dump_nf_ct): NLM_F_REQUEST | NLM_F_DUMP, sequence 7."""

TAR = """
import ctypes, os, sys
words = [word.encode() for word in sys.argv[2:]]
os.dup2(os.open(sys.argv[1], os.O_RDONLY), 0)
ctypes.CDLL(None).execvp(b"tar", (ctypes.c_char_p * (len(words) + 1))(*words))
sys.exit("there is no tar")
"""
"""Calls tar as criu/util.c (cr_system) does: by the C library's execvp, with its first argument as input."""


def dump_connections(environment: dict[str, str], *before: str) -> str:
    """Return the answers to both questions in a new network namespace, after a shell command there."""
    script = " && ".join([*before, 'exec "$@"'])
    argv = ["unshare", "--net", "sh", "-ec", script, "sh", sys.executable, "-c", DUMPING]
    return subprocess.check_output(argv, env={**os.environ, **environment}, text=True)


def test_a_namespace_without_connections_has_none_to_dump() -> None:
    ended = "20 3 2 7\n20 3 2 7\n"  # NLMSG_DONE, NLM_F_MULTI: what the kernel says, too
    assert dump_connections({}) == ended
    assert dump_connections(hasten.environment()) == ended


def test_an_empty_read_only_mount_is_packed_and_unpacked_without_tar(tmp_path: Path) -> None:
    mount, packed = tmp_path / "mount", tmp_path / "packed"
    mount.mkdir()
    bare = {**os.environ, **hasten.environment(), "PATH": "/nowhere"}  # there is no tar to be found

    def tar(on: Path, *words: str, output: BinaryIO | None = None) -> None:
        subprocess.run([sys.executable, "-c", TAR, str(on), "tar", *words], env=bare, check=True, stdout=output)

    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", mount], check=True)
    try:
        with packed.open("wb") as output:
            tar(mount, "--create", "--gzip", "--directory", "/proc/self/fd/0", ".", output=output)
        tar(packed, "--extract", "--gzip", "--directory", str(mount))
    finally:
        subprocess.run(["umount", mount], check=True)
    assert packed.stat().st_size == 45
    subprocess.run(["tar", "--extract", "--gzip", "--file", packed, "--directory", mount], check=True)
    assert list(mount.iterdir()) == []
