"""Keeps a process of the lab alive. JupyterHub looks after its services only every half minute, and a lab whose
dispatcher was killed is to be back at work within ten seconds.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("proverom.keeping")

PAUSE_SECONDS = 0.5
_ASKED_TO_END = (signal.SIGINT, signal.SIGTERM)


def keep_alive(begin: Callable[[], None], *, pause: float = PAUSE_SECONDS) -> None:
    """Return in a child process, after ``begin``; whenever that is killed by a signal, return in another one.

    The calling process itself stays behind, passes on SIGINT and SIGTERM, and ends as the child does that ends by
    itself or because it was asked to. To be called while there is one thread only.
    """
    asked = False
    child = 0

    def pass_on(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child:
            os.kill(child, number)

    for number in _ASKED_TO_END:
        signal.signal(number, pass_on)
    while True:
        # A signal that comes while the child is being made waits until there is somebody to pass it on to.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_END)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_END)
            begin()
            return
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_END)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = 0
        if asked or code >= 0:
            os._exit(code if code >= 0 else 128 - code)
        log.warning("The process was killed by signal %d; another one takes its place.", -code)
        time.sleep(pause)
