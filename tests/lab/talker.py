"""A member of a pod that never stops talking to another one over 127.0.0.1: `python3 talker.py TO PORT`.

It holds one connection to the workload at TO and asks it to count, again and again. Whoever asks at PORT gets one
line of JSON: how often it was answered, how often answers went backwards, why the connection broke, its boot id.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import uuid

PAUSE_S = 0.001


class Talker:
    """One conversation."""

    def __init__(self) -> None:
        self.boot = uuid.uuid4().hex
        self.answers = 0
        self.last = 0
        self.backwards = 0
        self.broken = ""
        self.others: set[str] = set()

    def talk(self, port: int) -> None:
        """Talk for as long as the connection lasts."""
        while True:
            try:
                link = socket.create_connection(("127.0.0.1", port), 10)
                break
            except OSError:
                time.sleep(0.1)
        link.settimeout(None)
        lines = link.makefile()
        try:
            while True:
                link.sendall(b"count\n")
                answer = json.loads(lines.readline())
                self.backwards += answer["count"] <= self.last
                self.last = answer["count"]
                self.others.add(answer["boot"])
                self.answers += 1
                time.sleep(PAUSE_S)
        except (OSError, ValueError) as error:
            self.broken = f"{type(error).__name__}: {error}"

    def told(self) -> bytes:
        """Return what was seen so far."""
        seen = {"boot": self.boot, "answers": self.answers, "backwards": self.backwards, "broken": self.broken}
        return json.dumps({**seen, "others": sorted(self.others)}).encode() + b"\n"


def main(to: int, port: int) -> None:
    """Talk, and tell of it."""
    talker = Talker()
    threading.Thread(target=talker.talk, args=(to,), daemon=True).start()
    with socket.create_server(("0.0.0.0", port)) as server:
        while True:
            asked, _ = server.accept()
            with asked:
                asked.sendall(talker.told())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
