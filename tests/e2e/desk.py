"""A desk, driven as a person drives it: Jupyter's own interfaces, through the lab's front door."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.lab import Lab, LabError, wait_until


class Desk:
    """A person's desk at one agency, named by its slug. Start it before anything else."""

    def __init__(self, lab: Lab, person: str, slug: str) -> None:
        self.lab, self.person, self.slug = lab, person, slug
        self.token = lab.login(person)["token"]
        self.path = f"/user/{person}/{slug}"
        self._server = f"/hub/api/users/{person}/servers/{slug}"

    def start(self) -> list[Mapping[str, Any]]:
        """Ask the Hub for the desk and return the progress events until JupyterLab answers."""
        with self.lab.client(self.person) as client:
            client.post(self._server, json={}).raise_for_status()
            with client.stream("GET", f"{self._server}/progress", timeout=180) as stream:
                found = (re.match(r"data:\s*(\{.*)", line) for line in stream.iter_lines())
                events = [json.loads(match[1]) for match in found if match]
            wait_until(lambda: self._answers(client), seconds=60, what=f"the desk {self.path}")
        return events

    def stop(self) -> None:
        with self.lab.client(self.person) as client:
            client.delete(self._server).raise_for_status()
            wait_until(
                lambda: self.slug not in client.get(f"/hub/api/users/{self.person}").json()["servers"],
                seconds=60,
                what="the desk's end",
            )

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.path}/api/status").status_code == 200
        except httpx.TransportError:
            return False

    def python(self, code: str, *, seconds: float = 90) -> str:
        """Run code in a new kernel and return what it printed. Raise LabError with its traceback if it failed."""
        with self.lab.client(self.person) as client:
            kernel = client.post(f"{self.path}/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]
            try:
                with self._socket(f"{self.path}/api/kernels/{kernel}/channels") as socket:
                    return _execute(socket, code, seconds)
            finally:
                client.delete(f"{self.path}/api/kernels/{kernel}")

    def terminal(self, command: str, *, seconds: float = 90) -> tuple[int, str]:
        """Type one command into a new terminal and return its exit status and what it showed."""
        mark = uuid.uuid4().hex
        with self.lab.client(self.person) as client:
            name = client.post(f"{self.path}/api/terminals").raise_for_status().json()["name"]
            try:
                with self._socket(f"{self.path}/terminals/websocket/{name}") as socket:
                    # Put together by the shell, so that the echo of the typed line isn't taken for the answer.
                    line = f"stty -echo cols 400; {command}; printf '%s%s %s\\n' {mark[:16]} {mark[16:]} $?\r"
                    socket.send(json.dumps(["stdin", line]))
                    return _until_mark(socket, mark, seconds)
            finally:
                client.delete(f"{self.path}/api/terminals/{name}")

    def _socket(self, path: str) -> ClientConnection:
        return connect(
            self.lab.url.replace("http", "ws", 1) + path,
            additional_headers={"Authorization": f"Bearer {self.token}"},
            proxy=None,
            max_size=None,
            open_timeout=30,
        )


def _execute(socket: ClientConnection, code: str, seconds: float) -> str:
    header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": "", "version": "5.4"}
    request = {
        "header": header | {"msg_type": "execute_request"},
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "store_history": False, "allow_stdin": False},
        "channel": "shell",
        "buffers": [],
    }
    socket.send(json.dumps(request))
    printed, idle, reply = "", False, None
    while not (idle and reply):
        message = json.loads(socket.recv(timeout=seconds))
        if message["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            printed += content["text"]
        elif kind == "execute_reply":
            reply = content
        elif kind == "status":
            idle = idle or content["execution_state"] == "idle"
    if reply["status"] != "ok":
        raise LabError("\n".join(reply.get("traceback", [])) or str(reply))
    return printed


def _until_mark(socket: ClientConnection, mark: str, seconds: float) -> tuple[int, str]:
    shown = ""
    while True:
        message = json.loads(socket.recv(timeout=seconds))
        if message[0] == "stdout":
            shown += message[1]
        if found := re.search(rf"{mark} (\d+)", shown):
            plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\r", "", shown[: found.start()])
            return int(found[1]), plain
