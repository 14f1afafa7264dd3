"""The priority of a thread that answers page faults: somebody stands still until it has."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from migrator.pager import native

REAL_TIME_PRIORITY = 1  # the lowest of sched(7): above all ordinary threads, below all other real-time ones
NICENESS = -15


def answer_first() -> None:
    """Let the calling thread run as soon as it has something to do.

    Niceness gives a larger share, but a thread that wakes up still waits until whoever runs has used up its slice
    (3 ms in Linux 6.18), and one fault waits for four such threads. A real-time thread does not wait. Where the
    kernel grants none (CONFIG_RT_GROUP_SCHED, no CAP_SYS_NICE) niceness has to do.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REAL_TIME_PRIORITY))
    except OSError:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def let_others_run() -> None:
    """Let whoever wakes up beside the calling thread, which has much to do, run soon: slice.c."""
    if native.BUILT:
        native.library().lifeboat_long_slices()
