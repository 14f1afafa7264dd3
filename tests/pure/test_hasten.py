"""What makes CRIU faster in a freeze: mappings that were foreseen, and the library that answers for the kernel."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.errors import ExecutionError
from migrator.runtime import hasten
from migrator.runtime.hasten import SMALLEST_BYTES, Foreseen

HOLDING = f"""
import mmap, sys
held = mmap.mmap(-1, {SMALLEST_BYTES + (8 << 20)}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held[::4096] = b"1" * (len(held) // 4096)
more = []
print("holding", flush=True)
for line in sys.stdin:
    if line == "map\\n":
        more.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    else:
        held.madvise(mmap.MADV_DONTFORK)  # changes a flag, and nothing that maps shows
    print("done", flush=True)
"""

OPENING = """
import os, sys
process = os.open("/proc/" + str(os.getpid()), os.O_RDONLY | os.O_DIRECTORY)
open(os.path.join(sys.argv[1], str(os.getpid())), "w").write("made up\\n")
print(os.read(os.open("smaps", os.O_RDONLY, dir_fd=process), 8).decode(), end="")
os.unlink(os.path.join(sys.argv[1], str(os.getpid())))
print(b"VmFlags" in os.read(os.open("smaps", os.O_RDONLY, dir_fd=process), 4096))
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """A process that is worth foreseeing, and changes its mappings when it is told to."""
    argv = [sys.executable, "-c", HOLDING]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def tell(holder: subprocess.Popen[str], what: str) -> None:
    """Let the process change its mappings."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write(f"{what}\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "done\n"


def test_mappings_that_stay_the_same_are_given_and_confirmed(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    foreseen = Foreseen(tmp_path / "mappings")
    foreseen.look([holder.pid, os.getppid()])
    foreseen.give()
    given = (tmp_path / "mappings" / str(holder.pid)).read_text().splitlines()
    smaps = Path(f"/proc/{holder.pid}/smaps").read_text().splitlines()
    kept = [line for line in smaps if line.startswith("VmFlags: ") or line[0] in "0123456789abcdef"]
    assert given == kept
    foreseen.confirm()


def test_a_new_mapping_is_left_to_the_kernel(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    foreseen = Foreseen(tmp_path / "mappings")
    foreseen.look([holder.pid])
    tell(holder, "map")
    foreseen.give()
    assert list((tmp_path / "mappings").iterdir()) == []
    foreseen.confirm()


def test_a_flag_that_changed_unseen_is_found_before_the_commit(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    foreseen = Foreseen(tmp_path / "mappings")
    foreseen.look([holder.pid])
    tell(holder, "advise")
    foreseen.give()
    assert (tmp_path / "mappings" / str(holder.pid)).exists()
    with pytest.raises(ExecutionError, match="changed its memory mappings"):
        foreseen.confirm()


def test_small_processes_and_those_that_ended_are_not_foreseen(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "100"]) as small, subprocess.Popen(["true"]) as ended:
        ended.wait()
        foreseen = Foreseen(tmp_path / "mappings")
        foreseen.look([small.pid, ended.pid])
        small.kill()
    foreseen.give()
    assert list((tmp_path / "mappings").iterdir()) == []


def test_the_library_opens_what_was_given_and_else_the_kernels_own(tmp_path: Path) -> None:
    environment = hasten.environment(mappings=tmp_path)
    assert "LD_PRELOAD" in environment, "the library was not built: pip install --editable . with a C compiler"
    argv = [sys.executable, "-c", OPENING, str(tmp_path)]
    said = subprocess.check_output(argv, env={**os.environ, **environment}, text=True)
    assert said == "made up\nTrue\n"


def test_several_libraries_are_preloaded_together(tmp_path: Path) -> None:
    joined = hasten.environment({"LD_PRELOAD": "/one.so", "ONE": "1"}, mappings=tmp_path)
    assert joined["LD_PRELOAD"].startswith("/one.so:")
    assert joined["ONE"] == "1"


def archive(directory: Path, into: Path, environment: dict[str, str]) -> bytes:
    """Let a child pack a directory with tar as CRIU does; return the archive."""
    program = (
        f"import ctypes, os; os.dup2(os.open({str(directory)!r}, os.O_RDONLY), 0); "
        "words = [b'tar', b'--create', b'--gzip', b'--directory', b'/proc/self/fd/0', b'.', None]; "
        "ctypes.CDLL(None).execvp(b'tar', (ctypes.c_char_p * 7)(*words))"
    )
    with into.open("wb") as output:
        argv = [sys.executable, "-c", program]
        subprocess.run(argv, stdout=output, env={**os.environ, **environment}, check=True)
    return into.read_bytes()


def test_a_directory_that_can_be_written_to_is_packed_by_tar(tmp_path: Path) -> None:
    directory = tmp_path / "empty"
    directory.mkdir()
    archive(directory, tmp_path / "packed.tar", hasten.environment())
    with tarfile.open(tmp_path / "packed.tar") as tar:
        assert tar.getnames() == ["."]


def test_a_mapping_is_one_line_in_maps_and_in_smaps() -> None:
    """The kernel writes a mapping's line in smaps as in maps: what is compared is the whole line."""
    with mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        maps = Path("/proc/self/maps").read_text().splitlines()
        smaps = Path("/proc/self/smaps").read_text().splitlines()
    assert len([line for line in smaps if line in maps]) == len([line for line in maps if line in smaps])


MIB = 1 << 20
PAGE = mmap.PAGESIZE


def library() -> ctypes.CDLL:
    """The library itself, without CRIU."""
    return ctypes.CDLL(str(next(Path(hasten.__file__).parent.glob("_hasten*.so"))))


def address(of: mmap.mmap) -> int:
    """Return where a mapping lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(of))


def copy(to: mmap.mmap, at: int, source: mmap.mmap, begin: int, size: int) -> None:
    """Copy by the library's memcpy."""
    call = library().memcpy
    call.restype, call.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    assert call(address(to) + at, address(source) + begin, size) == address(to) + at


@pytest.mark.parametrize("seed", range(24))
def test_a_copy_is_a_copy_whatever_is_left_out_of_it(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  not a secret
    size = dice.randrange(MIB, 9 * MIB)
    begin, at = dice.randrange(3 * PAGE), dice.choice((0, 16, dice.randrange(3 * PAGE)))
    source_flags, flags = (dice.choice((mmap.MAP_PRIVATE, mmap.MAP_SHARED)) for _ in range(2))
    source = mmap.mmap(-1, 9 * MIB + 4 * PAGE, flags=source_flags | mmap.MAP_ANONYMOUS)
    to = mmap.mmap(-1, 9 * MIB + 4 * PAGE, flags=flags | mmap.MAP_ANONYMOUS)
    source.madvise(mmap.MADV_NOHUGEPAGE)
    for written in (source, to):
        for _ in range(dice.randrange(12)):
            start = dice.randrange(len(written))
            length = min(dice.choice((1, PAGE, 70 * PAGE)), len(written) - start)
            written[start : start + length] = dice.randbytes(length)
    before, known = to[:], source[begin : begin + size] if dice.random() < 0.5 else None
    copy(to, at, source, begin, size)
    assert to[:] == before[:at] + (known or source[begin : begin + size]) + before[at + size :]


def test_what_is_untouched_takes_no_memory_in_a_copy() -> None:
    source = mmap.mmap(-1, 32 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    source.madvise(mmap.MADV_NOHUGEPAGE)
    source[40:45] = b"table"
    shared = os.memfd_create("args")
    os.ftruncate(shared, 32 * MIB)
    to = mmap.mmap(shared, 32 * MIB)
    to[20 * MIB : 21 * MIB] = b"x" * MIB
    copy(to, 16, source, 0, 32 * MIB - PAGE)
    assert os.stat(shared).st_blocks * 512 < MIB // 4
    assert to[:61] == bytes(56) + b"table"
    assert to[20 * MIB : 21 * MIB] == bytes(MIB)
    os.close(shared)
