from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.session import Session

from experiments.runner.iopub import Sender, Stream


class Kernel:
    """What a kernel sends with, and a client that listens to all of it."""

    def __init__(self, folder: Path) -> None:
        self.context = zmq.Context()
        self.session = Session(key=b"key")
        socket = self.context.socket(zmq.XPUB)
        address = f"ipc://{folder}/iopub"
        socket.bind(address)
        self.client = self.context.socket(zmq.SUB)
        self.client.subscribe(b"")
        self.client.connect(address)
        assert socket.poll(5000), "nobody has subscribed"
        self.sender = Sender(socket, self.session)

    def stream(self) -> Stream:
        return Stream(self.session, self.sender, "stdout", watchfd=False)  # type: ignore[no-untyped-call]

    def heard(self, kind: str, seconds: float = 10) -> dict[str, Any]:
        """Return the content of the next message of a kind."""
        end = time.monotonic() + seconds
        while self.client.poll(max(0, int((end - time.monotonic()) * 1000))):
            _, parts = self.session.feed_identities(self.client.recv_multipart())
            message = self.session.deserialize(parts)
            if message["msg_type"] == kind:
                content: dict[str, Any] = message["content"]
                return content
        raise TimeoutError(f"no {kind} was heard")

    def close(self) -> None:
        self.sender.stop()  # type: ignore[no-untyped-call]
        if self.sender.socket is not None:
            self.sender.socket.close(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    made = Kernel(tmp_path)
    yield made
    made.close()


def caller(sender: Sender) -> threading.Thread:
    """Return the thread that does what is scheduled."""
    found: list[threading.Thread] = []
    done = threading.Event()
    sender.schedule(lambda: (found.append(threading.current_thread()), done.set()))
    assert done.wait(10)
    return found[0]


def test_without_a_thread_a_message_is_sent_at_once_by_whoever_sends_it(kernel: Kernel) -> None:
    assert caller(kernel.sender) is threading.current_thread()
    kernel.session.send(kernel.sender, "status", {"execution_state": "busy"})
    assert kernel.heard("status") == {"execution_state": "busy"}
    assert not kernel.sender.thread.is_alive()


def test_what_is_written_is_seen_while_the_writer_is_still_at_work(kernel: Kernel) -> None:
    kernel.stream().write("so far")
    assert kernel.heard("stream") == {"name": "stdout", "text": "so far"}  # nobody has flushed it
    assert caller(kernel.sender) is kernel.sender.thread


def test_messages_keep_their_order_when_the_thread_begins_between_them(kernel: Kernel) -> None:
    for number in range(100):
        if number == 50:
            assert kernel.sender.begin()
        kernel.session.send(kernel.sender, "status", {"number": number})
    assert [kernel.heard("status")["number"] for _ in range(100)] == list(range(100))


def test_two_threads_may_begin_it_and_send_at_once(kernel: Kernel) -> None:
    def send(which: int) -> None:
        for number in range(200):
            if number == 100:
                kernel.sender.begin()
            kernel.session.send(kernel.sender, "status", {"which": which, "number": number})

    threads = [threading.Thread(target=send, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = [kernel.heard("status") for _ in range(800)]
    for which in range(4):
        assert [said["number"] for said in heard if said["which"] == which] == list(range(200))


def test_an_interruption_waits_until_the_message_is_whole(kernel: Kernel) -> None:
    done: list[str] = []

    def send() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("sent")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        kernel.sender.schedule(send)
    assert done == ["sent"]
    kernel.sender.schedule(lambda: done.append("again"))  # it is told once
    assert done == ["sent", "again"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_notebooks_own_way_with_interruptions_is_kept(kernel: Kernel) -> None:
    told: list[int] = []
    own = lambda number, _frame: told.append(number)  # noqa: E731 - a handler
    for handler in (own, signal.SIG_IGN):
        before = signal.signal(signal.SIGINT, handler)
        try:
            kernel.sender.schedule(lambda: signal.raise_signal(signal.SIGINT))
            assert signal.getsignal(signal.SIGINT) == handler
        finally:
            signal.signal(signal.SIGINT, before)
    assert told == [signal.SIGINT]


def test_what_a_fork_writes_comes_by_the_kernels_pipe(kernel: Kernel) -> None:
    stream = kernel.stream()
    pid = os.fork()
    if pid == 0:
        try:
            begun = kernel.sender.begin()
            stream.write(f"a fork has a thread: {begun}")
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert kernel.heard("stream")["text"] == "a fork has a thread: False"


def test_a_kernel_without_descriptors_still_sends(kernel: Kernel) -> None:
    stream, taken = kernel.stream(), []

    def take_all() -> None:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))

    try:
        with pytest.raises(OSError, match="Too many open files"):
            take_all()
        stream.write("all used up")
        kernel.session.send(kernel.sender, "status", {"execution_state": "idle"})
        assert kernel.heard("status") == {"execution_state": "idle"}
        assert kernel.heard("stream")["text"] == "all used up"
    finally:
        for descriptor in taken:
            os.close(descriptor)


def test_a_system_that_has_no_thread_to_give_sends_at_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(kernel.sender.thread, "start", refuse)
    kernel.stream().write("said all the same")
    assert kernel.heard("stream", seconds=0.1)["text"] == "said all the same"
    monkeypatch.undo()
    assert kernel.sender.begin()  # it is tried again


def test_nothing_begins_after_the_end(kernel: Kernel) -> None:
    assert kernel.sender.begin()
    kernel.sender.stop()  # type: ignore[no-untyped-call]
    assert not kernel.sender.begin()
