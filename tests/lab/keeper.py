"""A program that holds what programs hold, and tells whether it still does: files, locks, sockets, threads.

Runs in a container with nothing but Python: `python3 -c KEEPER keep FEATURE...` sets the features up and answers
on an abstract Unix socket, `python3 -c KEEPER ask` (by `podman exec`) prints one JSON object, feature -> "ok" or
what is wrong. Some features are there because CRIU refuses them.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import random
import select
import shutil
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

Check = Callable[[], None]

ADDRESS = "\0keeper"
WAIT_S = 10.0
IN_CREATE = 0x100  # include/uapi/linux/inotify.h
IPC_CREAT, SHM_BYTES = 0o1000, 4096
SYS_IO_URING_SETUP, SYS_PERF_EVENT_OPEN, SYS_USERFAULTFD = 425, 298, 323  # x86_64
SYS_FANOTIFY_INIT, SYS_MEMFD_SECRET, SYS_BPF = 300, 447, 321

libc = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> int:
    """Return what a function of the C library returned, or raise what errno says."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def threads() -> Check:
    """Four threads count."""
    counts = [0] * 4

    def count(number: int) -> None:
        while True:
            counts[number] += 1
            time.sleep(0.001)

    for number in range(4):
        threading.Thread(target=count, args=(number,), daemon=True).start()

    def check() -> None:
        before = list(counts)
        until(lambda: all(now > then for now, then in zip(counts, before, strict=True)))

    return check


def children() -> Check:
    """Three children, one of them with a child of its own, answer through pipes."""
    links = [echo_child(grandchild=number == 0) for number in range(3)]

    def check() -> None:
        for number, link in enumerate(links):
            link.sendall(b"%d" % number)
            assert link.recv(10) == b"%d" % number

    return check


def echo_child(*, grandchild: bool = False) -> socket.socket:
    """Return a socket whose other end a forked child answers with what it heard."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        if grandchild and os.fork() != 0:
            os.wait()
        while data := theirs.recv(100):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    ours.settimeout(WAIT_S)
    return ours


def deleted() -> Check:
    """A file that is open and has no name any more, in the directory $KEEPER_DIRECTORY."""
    file = tempfile.TemporaryFile(dir=os.environ.get("KEEPER_DIRECTORY", "/var/tmp"))  # noqa: SIM115  it stays open
    file.write(b"nameless" * 1000)
    file.flush()

    def check() -> None:
        file.seek(0)
        assert file.read() == b"nameless" * 1000

    return check


def shared() -> Check:
    """Memory shared with a child: anonymous, a named one in /dev/shm, and a memfd."""
    areas = [mmap.mmap(-1, 4096)]
    for descriptor in (os.open("/dev/shm/keeper", os.O_RDWR | os.O_CREAT), os.memfd_create("keeper")):
        os.ftruncate(descriptor, 4096)
        areas.append(mmap.mmap(descriptor, 4096))
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        while number := theirs.recv(1):
            for area in areas:
                area[0] = number[0]
            theirs.sendall(number)
        os._exit(0)
    ours.settimeout(WAIT_S)
    numbers = iter(range(1, 200))

    def check() -> None:
        number = next(numbers)
        ours.sendall(bytes([number]))
        ours.recv(1)
        assert [area[0] for area in areas] == [number] * 3
        assert Path("/dev/shm/keeper").read_bytes()[0] == number

    return check


def sysv() -> Check:
    """A System V segment."""
    libc.shmat.restype = ctypes.c_void_p
    identifier = call(libc.shmget(4711, SHM_BYTES, IPC_CREAT | 0o600))
    place = libc.shmat(identifier, None, 0)
    ctypes.memmove(place, b"system five", 11)

    def check() -> None:
        again = libc.shmat(call(libc.shmget(4711, SHM_BYTES, 0o600)), None, 0)
        assert ctypes.string_at(again, 11) == b"system five"

    return check


def unix() -> Check:
    """A named Unix socket that a child serves, with a connection made before."""
    path = "/var/tmp/keeper.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    if os.fork() == 0:
        while True:
            link, _ = listener.accept()
            threading.Thread(target=echo, args=(link,), daemon=True).start()
    old = connect_unix(path)

    def check() -> None:
        for link in (old, connect_unix(path)):
            link.sendall(b"hello")
            assert link.recv(10) == b"hello"

    return check


def echo(link: socket.socket) -> None:
    """Answer with what is heard."""
    while data := link.recv(100):
        link.sendall(data)


def connect_unix(path: str) -> socket.socket:
    """Connect, with a time-out."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(WAIT_S)
    link.connect(path)
    return link


def tcp() -> Check:
    """A connection over loopback to a listener of our own, and a UDP socket."""
    listener = socket.create_server(("127.0.0.1", 7999))
    ours = socket.create_connection(("127.0.0.1", 7999), timeout=WAIT_S)
    theirs, _ = listener.accept()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 7998))
    datagrams.settimeout(WAIT_S)

    def check() -> None:
        ours.sendall(b"over loopback")
        assert theirs.recv(100) == b"over loopback"
        datagrams.sendto(b"datagram", ("127.0.0.1", 7998))
        assert datagrams.recv(100) == b"datagram"

    return check


def locks() -> Check:
    """A flock and a POSIX record lock that nobody else gets."""
    whole, part = (Path(f"/var/tmp/lock{number}").open("w+") for number in (1, 2))  # noqa: SIM115  held
    fcntl.flock(whole, fcntl.LOCK_EX)
    fcntl.lockf(part, fcntl.LOCK_EX, 10)

    def check() -> None:
        assert not whole.closed
        assert not part.closed
        other = Path("/var/tmp/lock1").open()  # noqa: SIM115  closed with this function
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            raise AssertionError("flock is not held")
        child = os.fork()
        if child == 0:
            try:
                fcntl.lockf(Path("/var/tmp/lock2").open("r+"), fcntl.LOCK_EX | fcntl.LOCK_NB, 10)  # noqa: SIM115
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "the record lock is not held"

    return check


def inotify() -> Check:
    """A watch on a directory that still tells of a new file."""
    directory = tempfile.mkdtemp(dir=os.environ.get("KEEPER_WATCH", "/var/tmp"))
    watch = call(libc.inotify_init1(os.O_NONBLOCK))
    call(libc.inotify_add_watch(watch, directory.encode(), IN_CREATE))
    numbers = iter(range(1000))

    def check() -> None:
        name = f"new{next(numbers)}"
        Path(directory, name).touch()
        assert select.select([watch], [], [], WAIT_S)[0], "no event"
        assert name.encode() in os.read(watch, 4096)

    return check


def events() -> Check:
    """An epoll set with an eventfd and a timerfd."""
    poll, event = select.epoll(), os.eventfd(0)
    timer = call(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))
    every = struct.pack("qqqq", 0, 50_000_000, 0, 50_000_000)
    call(libc.timerfd_settime(timer, 0, every, None))
    poll.register(event, select.EPOLLIN)
    poll.register(timer, select.EPOLLIN)

    def check() -> None:
        os.eventfd_write(event, 1)
        seen: set[int] = set()

        def both() -> bool:
            seen.update(found for found, _ in poll.poll(0.1))
            return seen == {event, timer}

        until(both)
        os.eventfd_read(event)
        os.read(timer, 8)

    return check


def alarms() -> Check:
    """An interval timer that keeps sending signals."""
    heard: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)

    def check() -> None:
        before = len(heard)
        until(lambda: len(heard) > before)

    return check


def terminal() -> Check:
    """A pseudo terminal of our own with a child behind it."""
    leader, follower = os.openpty()
    if os.fork() == 0:
        while True:
            os.write(follower, os.read(follower, 100).upper())

    def check() -> None:
        os.write(leader, b"word\n")
        seen = b""
        while b"WORD" not in seen:
            assert select.select([leader], [], [], WAIT_S)[0], seen
            seen += os.read(leader, 100)

    return check


def pidfd() -> Check:
    """A pidfd of a living child."""
    child = os.fork()
    if child == 0:
        signal.pause()
    descriptor = os.pidfd_open(child)

    def check() -> None:
        signal.pidfd_send_signal(descriptor, 0)

    return check


def tmpfs() -> Check:
    """A file in the tmpfs $KEEPER_TMPFS."""
    path = Path(os.environ["KEEPER_TMPFS"]) / "kept"
    path.write_text("volatile")

    def check() -> None:
        assert path.read_text() == "volatile"
        mounts = Path("/proc/self/mounts").read_text()
        assert f"{os.environ['KEEPER_TMPFS']} tmpfs" in mounts, mounts

    return check


def cgroups() -> Check:
    """Two cgroups below the container's, as systemd has them: a child in one, all others in the other."""
    top = Path("/sys/fs/cgroup")
    link = echo_child()
    child = int(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1])
    for name in ("first", "other"):
        (top / name).mkdir()
    for pid in (top / "cgroup.procs").read_text().split():
        (top / "first/cgroup.procs").write_text(pid)
    (top / "other/cgroup.procs").write_text(str(child))

    def check() -> None:
        link.sendall(b"there")
        assert link.recv(10) == b"there"
        for pid, place in (("1", "/first"), (child, "/other")):
            found = Path(f"/proc/{pid}/cgroup").read_text()
            assert f"0::{place}" in found.splitlines(), f"{pid} is in {found!r}"

    return check


class Churn:
    """Changes a directory tree all the time and remembers what must be there."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.lock = threading.Lock()
        self.random = random.Random(4711)  # noqa: S311  the same each time
        self.known: dict[str, dict[str, object]] = {}
        top.mkdir(parents=True, exist_ok=True)
        for _ in range(150):
            self.change()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """Change for ever."""
        while True:
            with self.lock:
                self.change()
            time.sleep(0.005)

    def change(self) -> None:
        """Do one of the things people do to files."""
        path = self.top / f"d{self.random.randrange(4)}" / f"f{self.random.randrange(40)}"
        remove(path)
        path.parent.mkdir(exist_ok=True)
        deed = self.random.choice((self.write, self.sparse, self.link, self.hard_link, self.special, self.nothing))
        deed(path)
        self.known[path.parent.name] = tree(path.parent)

    def write(self, path: Path) -> None:
        path.write_bytes(self.random.randbytes(self.random.randrange(20000)))
        path.chmod(self.random.choice((0o600, 0o4755, 0o644)))
        os.chown(path, self.random.randrange(3), self.random.randrange(70000))
        os.setxattr(path, "user.note", self.random.randbytes(9))
        os.setxattr(path, "system.posix_acl_access", acl(self.random.randrange(1000)))

    def sparse(self, path: Path) -> None:
        with path.open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end")

    def link(self, path: Path) -> None:
        path.symlink_to(f"nowhere{self.random.randrange(9)}")

    def hard_link(self, path: Path) -> None:
        others = [item for item in path.parent.iterdir() if item.is_file() and not item.is_symlink()]
        if others:
            os.link(self.random.choice(others), path)

    def special(self, path: Path) -> None:
        kind = self.random.choice(("fifo", "device", "directory", "socket"))
        path = path.with_name(f"{path.name}-{kind}")  # rsync would wait in a pipe that had been a file
        remove(path)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            os.mknod(path, 0o20600, os.makedev(1, self.random.randrange(3, 9)))
        elif kind == "directory":
            path.mkdir()
            (path / "inner").write_text("inner")
        else:
            socket.socket(socket.AF_UNIX).bind(str(path))

    def nothing(self, path: Path) -> None:
        """Leave it removed; now and then a whole directory."""
        if self.random.randrange(10) == 0:
            remove(path.parent)

    def check(self) -> None:
        with self.lock:
            for name, known in self.known.items():
                found = tree(self.top / name)
                wrong = [path for path in found.keys() | known.keys() if found.get(path) != known.get(path)]
                assert not wrong, [(path, known.get(path), found.get(path)) for path in wrong[:3]]


def acl(user: int) -> bytes:
    """Return an access ACL with one more user, as in include/uapi/linux/posix_acl_xattr.h."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, 4, user), (4, 4, nobody), (16, 6, nobody), (32, 4, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def remove(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def tree(top: Path) -> dict[str, object]:
    """Return all that can be seen of a tree; hard links as the first name of each file."""
    found: dict[str, object] = {}
    first: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        name, status = str(path.relative_to(top)), path.lstat()
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (hashlib.sha256(path.read_bytes()).hexdigest(), status.st_size, status.st_mtime_ns)
            content = (content, status.st_blocks * 512 > status.st_size + 65536, sorted(xattrs(path)))
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        same = first.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_rdev, same, content)
    return found


def xattrs(path: Path) -> list[tuple[str, bytes]]:
    """Return the extended attributes of a file."""
    return [(name, os.getxattr(path, name)) for name in os.listxattr(path)]


def churn() -> Check:
    """A tree in a volume ($KEEPER_DIRECTORY) that changes all the time."""
    return Churn(Path(os.environ["KEEPER_DIRECTORY"]) / "churn").check


def churned_layer() -> Check:
    """A tree in the writable layer that changes all the time."""
    return Churn(Path("/srv/churn")).check


def image_files() -> Check:
    """Files of the image, removed, replaced and replaced by a directory of the same name."""
    removed, emptied, changed = Path("/etc/issue"), Path("/etc/skel"), Path("/etc/debian_version")
    assert removed.exists()
    assert list(emptied.iterdir())
    removed.unlink()
    shutil.rmtree(emptied)
    emptied.mkdir()
    changed.unlink()
    changed.mkdir()

    def check() -> None:
        assert not removed.exists()
        assert not list(emptied.iterdir())
        assert changed.is_dir()

    return check


def large_deleted() -> Check:
    """A file of 8 MiB that is open and has no name: more than CRIU takes along by itself."""
    file = tempfile.TemporaryFile(dir=os.environ.get("KEEPER_DIRECTORY", "/var/tmp"))  # noqa: SIM115  it stays open
    content = b"".join(b"%16d" % number for number in range(1 << 19))
    file.write(content)
    file.flush()

    def check() -> None:
        file.seek(0)
        assert file.read() == content

    return check


def syscall_descriptor(number: int, *arguments: object) -> Check:
    """Hold what a system call returned."""
    descriptor = call(libc.syscall(number, *arguments))
    return lambda: os.fstat(descriptor) and None


def io_uring() -> Check:
    """A ring, which CRIU refuses."""
    parameters = ctypes.create_string_buffer(120)
    return syscall_descriptor(SYS_IO_URING_SETUP, 8, parameters)


def perf() -> Check:
    """A performance counter, which CRIU refuses."""
    attributes = ctypes.create_string_buffer(struct.pack("IIQ", 1, 112, 0) + b"\0" * 96)
    return syscall_descriptor(SYS_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0)


def userfault() -> Check:
    """A userfaultfd, which CRIU refuses."""
    return syscall_descriptor(SYS_USERFAULTFD, 1)


def fanotify() -> Check:
    """A fanotify group."""
    return syscall_descriptor(SYS_FANOTIFY_INIT, 0, 0)


def secret_memory() -> Check:
    """A memfd_secret, mapped."""
    descriptor = call(libc.syscall(SYS_MEMFD_SECRET, 0))
    os.ftruncate(descriptor, 4096)
    area = mmap.mmap(descriptor, 4096)
    area[:3] = b"abc"

    def check() -> None:
        assert area[:3] == b"abc"

    return check


def packet() -> Check:
    """A packet socket, as tcpdump has one."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    return lambda: link.getsockname() and None


def netlink() -> Check:
    """A netlink socket with a subscription."""
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    link.bind((0, 1))
    return lambda: link.getsockname() and None


def host_stream() -> Check:
    """A connection to the journal of the host, whose sockets are at /host."""
    return connected(socket.SOCK_STREAM, "/host/stdout")


def host_datagrams() -> Check:
    """The same by datagrams, as syslog(3) has it."""
    return connected(socket.SOCK_DGRAM, "/host/dev-log")


def host_called() -> Check:
    """Whoever calls from the host at /srv/called is heard, and not answered."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/called/s")
    listener.listen()
    callers: list[socket.socket] = []
    threading.Thread(target=lambda: callers.append(listener.accept()[0]), daemon=True).start()
    held = (listener, callers)  # both stay open as long as this can be asked
    return lambda: held[0].getsockname() and None


def connected(kind: socket.SocketKind, path: str) -> Check:
    """Hold a connection by a Unix socket."""
    link = socket.socket(socket.AF_UNIX, kind)
    link.connect(path)
    return lambda: link.getpeername() and None


def locked() -> Check:
    """Locked memory."""
    area = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    call(libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)))
    area[:4] = b"lock"

    def check() -> None:
        assert area[:4] == b"lock"
        assert "VmLck:\t    1024 kB" in Path("/proc/self/status").read_text()

    return check


def environment() -> Check:
    """The environment, and standard input as it was."""
    kept, terminal_input = dict(os.environ), os.isatty(0)

    def check() -> None:
        assert dict(os.environ) == kept
        assert os.isatty(0) == terminal_input

    return check


def until(true: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def checked(check: Check) -> str:
    """Return ok, or what is wrong."""
    try:
        check()
    except Exception as error:  # noqa: BLE001  whatever is wrong is the answer
        return f"{type(error).__name__}: {error}"
    return "ok"


def keep(names: list[str]) -> None:
    """Set up and answer for ever."""
    checks = {name: globals()[name]() for name in names}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(ADDRESS)
    listener.listen()
    while True:
        link, _ = listener.accept()
        with link:
            link.sendall(json.dumps({name: checked(check) for name, check in checks.items()}).encode())


def ask() -> None:
    """Print the answer."""
    with connect_unix(ADDRESS) as link:
        link.settimeout(30)
        print(link.makefile().read())


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep(sys.argv[2:])
    else:
        ask()
