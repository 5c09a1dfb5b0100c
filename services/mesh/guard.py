"""Turns into a program that ends when the process that started it ends, however that happens.

Run as a script, before the program: `guard.py <pid of the starter> <lifeline> <program> …`. On
Linux the kernel is asked for it. Elsewhere `lifeline` is the read end of a pipe whose only write end
the starter holds: a small process waits there and kills the program's group when the pipe closes.
"""

import ctypes
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; end at once when it has already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the supervisor has ended")


def watch(lifeline: int) -> None:
    """Leave a process behind that kills this one and its group when the lifeline closes."""
    target = os.getpid()
    os.set_inheritable(lifeline, False)
    if os.fork() != 0:
        return
    while os.getppid() == target:
        readable, _, _ = select.select([lifeline], [], [], 1.0)
        if readable and os.getppid() == target:
            os.killpg(target, signal.SIGKILL)
    os._exit(0)


def main(parent: str, lifeline: str, *command: str) -> None:
    """Tie this process to its starter, then become the program."""
    # A shell without job control has SIGINT ignored in what it starts in the background.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if int(lifeline) >= 0:
        watch(int(lifeline))
    else:
        die_with_parent(int(parent))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
