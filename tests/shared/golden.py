"""One message of each kind with every field set, as it lies in `tests/data/contracts/NAME.N.json`.

The newest N is how it is written now; the older ones have been written once, by services that may still run.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mlhub_shared.contracts import commands, events, queries, services, workspace
from mlhub_shared.contracts.commands import DeleteWorkspace, SpawnWorkspace, StopWorkspace, decode_command
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import Message
from mlhub_shared.contracts.queries import AttachAddress, Failure, Reply, Resource
from mlhub_shared.contracts.timers import Purpose, Timer
from mlhub_shared.contracts.workspace import Endpoint, Phase, Reason, Wanted, WorkspaceRecord, WorkspaceSpec
from tests.support.makers import NOW

FOLDER = Path(__file__).parent.parent / "data" / "contracts"

WORKSPACE = WorkspaceId(hub="test", user="alice", server="gpu1")
ATTACH = AttachAddress(host="10.0.0.7", port=2022, host_key="ssh-ed25519 AAAAC3")
LATER = NOW + timedelta(days=2)

VOCABULARIES: dict[str, type[StrEnum]] = {enum.__name__: enum for enum in (EventKind, Phase, Wanted, Reason, Purpose)}
"""The words that messages are made of."""

Read = Callable[[bytes], BaseModel]


@dataclass(frozen=True)
class Sample:
    """A message and how it is read."""

    value: BaseModel
    read: Read

    def written(self) -> dict[str, Any]:
        """As it goes over the wire."""
        data = self.value.encode() if isinstance(self.value, Message) else self.value.model_dump_json().encode()
        written: dict[str, Any] = json.loads(data)
        return written


def of(value: BaseModel, read: Read | None = None) -> Sample:
    return Sample(value, read or type(value).model_validate_json)


def message(kind: str) -> dict[str, Any]:
    return {"id": f"id-of-{kind}", "at": NOW, "requester": "user:alice", "correlation_id": f"correlation-of-{kind}"}


SPEC = WorkspaceSpec(
    profile="large",
    image="quay.io/jupyter/minimal-notebook:2026-01-01",
    cpu_limit=1.5,
    mem_limit=2**31,
    shm_size=2**28,
    gpus="0,2",
    env={"A": "1"},
    secret_env=("DB_PASSWORD",),
    lifetime=timedelta(days=1, hours=12),
    is_mount_volume=False,
    display_name="My GPUs",
    own_tools=True,
    own_ssh=True,
    update=True,
)

RECORD = WorkspaceRecord(
    workspace=WORKSPACE,
    generation=1767323045000000,
    wanted=Wanted.STOPPED,
    phase=Phase.STOPPING,
    pool="default",
    node="n1",
    base_url="/user/alice/gpu1/",
    spec=SPEC,
    sequence=17,
    endpoint=Endpoint(host="10.0.0.8", port=8888),
    progress=60,
    message="Stopping",
    reason=Reason.EXPIRED,
    log_tail="last words",
    requester="user:alice",
    correlation_id="c1",
    requested_at=NOW,
    phase_since=NOW,
    started_at=NOW,
    ready_at=NOW,
    expires_at=LATER,
    erasing=True,
    boot="boot-1",
    gpu_ids=("0", "2"),
    image_id="sha256:0f",
    has_data=False,
)

SAMPLES: dict[str, Sample] = {
    "spawn": of(
        SpawnWorkspace(**message("spawn"), workspace=WORKSPACE, generation=5, base_url="/user/alice/gpu1/", spec=SPEC),
        decode_command,
    ),
    "stop": of(
        StopWorkspace(**message("stop"), workspace=WORKSPACE, generation=6, reason=Reason.EXPIRED, only_generation=5),
        decode_command,
    ),
    "delete": of(DeleteWorkspace(**message("delete"), workspace=WORKSPACE, generation=7), decode_command),
    "event": of(
        Event(
            **message("event"),
            kind=EventKind.WORKSPACE_PROGRESSED,
            workspace=WORKSPACE,
            user="alice",
            generation=5,
            message="Pulling",
            progress=40,
            detail={"text": "a", "whole": 1, "part": 0.5, "yes": True, "nothing": None},
        )
    ),
    "timer": of(Timer(**message("timer"), workspace=WORKSPACE, generation=5, purpose=Purpose.EXPIRE, expires_at=LATER)),
    "record": of(RECORD),
    "secrets": of(
        workspace.WorkspaceSecrets(generation=5, env={"JUPYTERHUB_API_TOKEN": "t"}, secret_env={"DB_PASSWORD": "p"})
    ),
    "node-mark": of(services.NodeMark(draining=True)),
    "lease": of(
        services.WorkerLease(
            node="n1",
            identity="0f3a",
            replica="r1",
            data="77e2",
            trouble="The Kubernetes API does not answer",
            pool="default",
            backend="process",
            capacity=2,
            running=1,
            cpu_total=8.0,
            mem_total=2**34,
            attach=ATTACH,
            version="0.1.0",
            cpu_capacity=16.0,
            mem_capacity=2**35,
            cpu_granted=1.5,
            mem_granted=2**31,
            gpus=("0", "1"),
            gpus_free=("1",),
            gpus_counted=True,
            labels={"zone": "b"},
            draining=True,
            limits="CPU and memory by cgroup",
            started_at=NOW,
        )
    ),
    "route": of(services.Route(routespec="/services/x/", target="http://127.0.0.1:1", data={"a": 1, "hub": True})),
    "proxy-state": of(
        services.ProxyState(
            replica="n1",
            workspaces_revision=3,
            routes_revision=4,
            version="2.8.1",
            tls_pin="sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        )
    ),
    "proxy-activity": of(
        services.ProxyActivity(
            replica="n1",
            workspaces={
                WORKSPACE.name: services.Activity(last_activity=NOW, bytes_in=5, bytes_out=6, open_connections=1)
            },
        )
    ),
    "ssh-key": of(
        services.SshKey(
            user="alice", label="laptop", public_key="ssh-ed25519 AAAAC3", fingerprint="SHA256:x", added_at=NOW
        )
    ),
    "resolve-target": of(queries.ResolveTarget(workspace=WORKSPACE)),
    "target": of(queries.Target(record=RECORD, attach=ATTACH)),
    "describe-workspace": of(queries.DescribeWorkspace(workspace=WORKSPACE)),
    "workspace-description": of(
        queries.WorkspaceDescription(
            record=RECORD, running=True, cpu_seconds=1.5, memory_bytes=2**20, log_tail="last words"
        )
    ),
    "list-resources": of(queries.ListResources()),
    "resources": of(
        queries.Resources(node="n1", resources=[Resource(kind="process", name="4711", workspace=WORKSPACE)])
    ),
    "extend-workspace": of(
        queries.ExtendWorkspace(
            workspace=WORKSPACE, generation=5, expires_at=LATER, requester="user:alice", correlation_id="c1"
        )
    ),
    "drain-node": of(queries.DrainNode(draining=True, requester="user:admin", correlation_id="c1")),
    "list-ports": of(queries.ListPorts(workspace=WORKSPACE)),
    "ports": of(queries.Ports(ports=[queries.Port(port=8050, program="python3")])),
    "open-port": of(queries.OpenPort(workspace=WORKSPACE, port=8050)),
    "end-session": of(queries.EndSession(id="s1", requester="user:admin", correlation_id="c1")),
    "open-session": of(
        services.OpenSession(
            id="s1",
            gateway="n1",
            requester="user:alice",
            workspace=WORKSPACE,
            client="192.0.2.7",
            method="key",
            fingerprint="SHA256:x",
            opened_at=NOW,
            bytes_in=5,
            bytes_out=6,
        )
    ),
    "certificate": of(services.TlsEntry(services.Certificate(kind="certificate", pem="-----BEGIN X-----"))),
    "acme-account": of(services.TlsEntry(services.AcmeAccount(kind="account", key="-----BEGIN X-----"))),
    "acme-turn": of(
        services.TlsEntry(
            services.AcmeTurn(kind="turn", replica="n1", until=LATER, failures=2, problem="it does not answer")
        )
    ),
    "acme-challenge": of(
        services.TlsEntry(
            services.AcmeChallenge(kind="challenge", path="/.well-known/acme-challenge/t", answer="t.thumbprint")
        )
    ),
    "reply": of(Reply(answer={"node": "n1", "resources": []})),
    "failure": of(Reply(failure=Failure(message="no such workspace", temporary=True))),
}

MODULES = (commands, events, queries, services, workspace)


def versions(name: str) -> list[Path]:
    """The golden files of a sample, oldest first."""
    return sorted(FOLDER.glob(f"{name}.*.json"), key=_number)


def text(content: dict[str, Any]) -> str:
    """How golden files are laid out, so that a change is a readable difference."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def vocabulary() -> dict[str, list[str]]:
    """Every word of every vocabulary."""
    return {name: sorted(enum) for name, enum in VOCABULARIES.items()}


def _number(path: Path) -> int:
    return int(path.name.split(".")[-2])
