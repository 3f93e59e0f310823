"""Exec, port-forward and logs: what reaches into a pod."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kube.clients import Clients, Obj, answer_of, clients_of, phase, pod, refused, state
from tests.support.kube import FakeCluster, Script
from tests.support.kube.isolated import isolation_missing
from tests.support.waiting import until

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"


@pytest.fixture
async def running(k8s: Clients) -> Clients:
    """With a pod that runs."""
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())
    await until(lambda: "running" in state(k8s.cluster))
    assert await answer_of(k8s) == 200
    return k8s


async def _open(k8s: Clients, *command: str, protocol: str = V5, tty: bool = False, **options: Any) -> Any:
    options = {"stdin": True, "stdout": True, "stderr": not tty, "tty": tty, "container": "workspace", **options}
    headers = {"sec-websocket-protocol": protocol}
    call = k8s.sockets.connect_get_namespaced_pod_exec
    return await (
        await call("w", k8s.namespace, command=list(command), _preload_content=False, _headers=headers, **options)
    )


async def _all(ws: Any) -> dict[int, bytes]:
    """What comes on each channel until the end."""
    got: dict[int, bytes] = {}
    async with asyncio.timeout(20):
        async for message in ws:
            assert message.type is aiohttp.WSMsgType.BINARY
            got[message.data[0]] = got.get(message.data[0], b"") + message.data[1:]
    assert ws.close_code == 1000
    return got


def _code(got: dict[int, bytes]) -> int:
    result: Obj = json.loads(got[3])
    if result["status"] == "Success":
        return 0
    assert result["reason"] == "NonZeroExitCode"
    (cause,) = result["details"]["causes"]
    assert cause["reason"] == "ExitCode"
    return int(cause["message"])


async def test_output_errors_and_exit_code_come_apart(running: Clients) -> None:
    for protocol in (V4, V5):
        ws = await _open(running, "sh", "-c", "echo out; echo err >&2; exit 3", protocol=protocol)
        assert ws._response.headers["Sec-WebSocket-Protocol"] == protocol
        got = await _all(ws)
        assert (got[1], got[2], _code(got)) == (b"out\n", b"err\n", 3)
    assert _code(await _all(await _open(running, "true"))) == 0
    assert _code(await _all(await _open(running, "sh", "-c", "kill -9 $$"))) == 137


async def test_empty_frames_come_first(running: Clients) -> None:
    ws = await _open(running, "cat")
    assert [(await ws.receive_bytes()) for _ in range(2)] == [b"\x01", b"\x02"]
    await ws.close()


async def test_the_end_of_input_is_told_by_v5_alone(running: Clients) -> None:
    everything = bytes(range(256)) * 4096
    ws = await _open(running, "cat")
    await ws.send_bytes(b"\x00" + everything)
    await ws.send_bytes(b"\xff\x00")
    assert (await _all(ws))[1] == everything

    ws = await _open(running, "cat", protocol=V4)
    await ws.send_bytes(b"\x00abc")
    await ws.send_bytes(b"\xff\x00")
    reading = asyncio.create_task(_all(ws))
    await asyncio.sleep(0.7)
    assert not reading.done()
    reading.cancel()
    await ws.close()


async def test_a_terminal_has_a_size_once_it_is_told_one(running: Clients) -> None:
    ws = await _open(running, "sh", "-c", "stty size; read line; stty size; echo $TERM; tty", tty=True)
    assert await ws.receive_bytes() == b"\x01"
    assert await ws.receive_bytes() == b"\x010 0\r\n"
    await ws.send_bytes(b"\x04" + json.dumps({"Width": 80, "Height": 24}).encode())
    await ws.send_bytes(b"\x00go\n")
    got = await _all(ws)

    assert b"24 80\r\nxterm\r\n/dev/pts/" in got[1]
    assert _code(got) == 0


async def test_ctrl_c_reaches_what_runs_in_a_terminal(running: Clients) -> None:
    ws = await _open(running, "sh", "-c", "trap 'exit 7' INT; echo ready; while :; do sleep 0.1; done", tty=True)
    while b"ready" not in await ws.receive_bytes():
        pass
    await ws.send_bytes(b"\x00\x03")

    assert _code(await _all(ws)) == 7


async def test_a_program_survives_the_close_and_dies_with_the_container(running: Clients) -> None:
    home = running.cluster.kubelet.home("w")
    script = "echo $$ > pid; until [ -e go ]; do sleep 0.05; done; echo on > went; sleep 60"
    ws = await _open(running, "sh", "-c", script, stdin=False)
    await until((home / "pid").exists)
    await ws.close()
    (home / "go").touch()
    await until((home / "went").exists)

    process = Path("/proc") / (home / "pid").read_text().strip()
    assert process.exists()
    running.cluster.kubelet.kill("w", 1)
    await until(lambda: not process.exists())


async def test_it_is_the_leader_of_its_own_group(running: Clients) -> None:
    got = await _all(await _open(running, "sh", "-c", "ps -o pid=,pgid=,sid= -p $$; echo $$"))
    ids = set(got[1].split())

    assert len(ids) == 1


async def test_what_can_not_be_run(running: Clients) -> None:
    result = json.loads((await _all(await _open(running, "nowhere")))[3])
    assert (result["reason"], result["code"]) == ("InternalError", 500)
    assert "executable file not found" in result["message"]

    for options, status in (({"container": "other"}, 400), ({"stdin": False, "stdout": False, "stderr": False}, 400)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await _open(running, "true", **options)
        assert caught.value.status == status
    await running.core.delete_namespaced_pod("w", running.namespace, grace_period_seconds=0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await _open(running, "true")
    assert caught.value.status == 404


@pytest.mark.parametrize("verb", ["get", "create"])
@pytest.mark.parametrize("what", ["exec", "portforward"])
async def test_both_rights_are_needed(running: Clients, tmp_path: Path, what: str, verb: str) -> None:
    rules = [{"apiGroups": [""], "resources": [f"pods/{what}"], "verbs": [verb]}]
    async with clients_of(running.cluster, tmp_path, running.cluster.token(rules)) as k8s:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await (_open(k8s, "true") if what == "exec" else _forward(k8s, 8888))
        assert caught.value.status == 403


async def _forward(k8s: Clients, port: int, protocol: str = V4) -> Any:
    call = k8s.sockets.connect_get_namespaced_pod_portforward
    headers = {"sec-websocket-protocol": protocol}
    return await (await call("w", k8s.namespace, ports=port, _preload_content=False, _headers=headers))


async def test_a_port_of_the_pod_is_reached(running: Clients) -> None:
    ws = await _forward(running, 8888)
    assert [await ws.receive_bytes() for _ in range(2)] == [b"\x00\xb8\x22", b"\x01\xb8\x22"]
    await ws.send_bytes(b"\x00GET /user/ann/api HTTP/1.0\r\n\r\n")

    assert (await _all(ws))[0].endswith(b"\r\n\r\n{}")


async def test_a_port_that_nobody_listens_on_and_a_protocol_that_nobody_speaks(running: Clients) -> None:
    got = await _all(await _forward(running, 1))
    assert got[1][2:].endswith(b"connect: connection refused")
    for protocol in (V5, "v2.portforward.k8s.io"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await _forward(running, 8888, protocol)
        assert caught.value.status == 403


async def test_the_log_of_a_container(k8s: Clients) -> None:
    command = {"command": ["sh", "-c", "for i in 1 2 3 4; do echo line $i; done; echo last >&2; exit 1"]}
    await k8s.core.create_namespaced_pod(k8s.namespace, pod(container=command))
    await until(lambda: phase(k8s.cluster) == "Failed")

    assert await k8s.core.read_namespaced_pod_log("w", k8s.namespace, tail_lines=2) == "line 4\nlast\n"
    missing = k8s.core.read_namespaced_pod_log("w", k8s.namespace, previous=True)
    status = await refused(missing, 400, "BadRequest")
    assert status["message"] == 'previous terminated container "workspace" in pod "w" not found'


async def test_the_log_of_the_run_before(k8s: Clients) -> None:
    k8s.cluster.kubelet.timing.crash_backoff = 0.05
    command = {"command": ["sh", "-c", 'if [ -e "$HOME/x" ]; then sleep 60; fi; touch "$HOME/x"; echo first; exit 1']}
    await k8s.core.create_namespaced_pod(k8s.namespace, pod(container=command, spec={"restartPolicy": "Always"}))
    await until(
        lambda: (
            (k8s.cluster.get("pods", "w") or {})["status"].get("containerStatuses", [{}])[0].get("restartCount") == 1
        )
    )

    assert await k8s.core.read_namespaced_pod_log("w", k8s.namespace, previous=True) == "first\n"
    assert await k8s.core.read_namespaced_pod_log("w", k8s.namespace) == ""


async def test_a_log_that_is_not_there_yet(k8s: Clients) -> None:
    k8s.cluster.kubelet.script("w", Script(pull=60))
    await k8s.core.create_namespaced_pod(k8s.namespace, pod())
    await until(lambda: "waiting" in state(k8s.cluster))
    status = await refused(k8s.core.read_namespaced_pod_log("w", k8s.namespace), 400)

    assert status["message"] == 'container "workspace" in pod "w" is waiting to start: ContainerCreating'


async def test_a_lost_node_answers_nothing(running: Clients) -> None:
    running.cluster.kubelet.lose_node()
    await refused(running.core.read_namespaced_pod_log("w", running.namespace), 500, "InternalError")
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await _open(running, "true")
    assert caught.value.status == 500


async def test_a_network_of_the_pods_own(tmp_path: Path) -> None:
    if missing := isolation_missing():
        pytest.skip(f"isolated pods need {missing}")
    async with FakeCluster.open(isolated=True) as cluster, clients_of(cluster, tmp_path) as k8s:
        await k8s.core.create_namespaced_pod(k8s.namespace, pod())
        await until(lambda: "running" in state(cluster))
        assert await answer_of(k8s) == 200
        got = await _all(await _open(k8s, "sh", "-c", "tail -n +2 /proc/net/tcp | wc -l"))
        assert int(got[1]) <= 2
        ws = await _forward(k8s, 8888)
        await ws.send_bytes(b"\x00GET / HTTP/1.0\r\n\r\n")
        assert (await _all(ws))[0].endswith(b"{}")
