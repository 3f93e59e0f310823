"""Running a cell in a workspace as a browser does: over a WebSocket, through the public port."""

import json
import time
import uuid
from typing import Any

from websockets.sync.client import connect

from tests.support.hub_client import HubClient, base_url


def run_cell(hub: HubClient, user: str, code: str, *, server: str = "", within: float = 60) -> str:
    """Start a kernel, run the code, and return what it printed."""
    answer = hub.workspace("POST", user, "api/kernels", server, json={"name": "python3"})
    assert answer.status_code == 201, answer.text
    kernel = answer.json()["id"]
    address = f"{hub.url.replace('http', 'ws', 1)}{base_url(user, server)}api/kernels/{kernel}/channels"
    headers = {"Authorization": f"token {hub.token}"}
    with connect(address, additional_headers=headers, open_timeout=within, proxy=None) as channel:
        request = _execute(code)
        channel.send(json.dumps(request))
        printed, deadline = "", time.monotonic() + within
        while time.monotonic() < deadline:
            message = json.loads(channel.recv(timeout=within))
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            if message["msg_type"] == "stream":
                printed += message["content"]["text"]
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return printed
    raise TimeoutError(printed)


def _execute(code: str) -> dict[str, Any]:
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": "s"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
