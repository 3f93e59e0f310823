"""What the hub and the clean-up ask of a worker. The newest generation of a workspace wins."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, TypeAdapter

from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.message import Message
from mlhub_shared.contracts.workspace import Reason, Wanted, WorkspaceSpec


class SpawnWorkspace(Message):
    """Have this workspace running."""

    kind: Literal["spawn"] = "spawn"
    workspace: WorkspaceId
    generation: PositiveInt
    base_url: str
    spec: WorkspaceSpec

    @property
    def wanted(self) -> Wanted:
        """The state this command asks for."""
        return Wanted.RUNNING


class StopWorkspace(Message):
    """Have this workspace stopped, its data kept; cancels a queued or running spawn."""

    kind: Literal["stop"] = "stop"
    workspace: WorkspaceId
    generation: PositiveInt
    reason: Reason = Reason.ASKED
    only_generation: PositiveInt | None = None
    """The generation this stop is meant for; dropped if the workspace has moved on. None: any."""

    @property
    def wanted(self) -> Wanted:
        """The state this command asks for."""
        return Wanted.STOPPED


class DeleteWorkspace(Message):
    """Have nothing left of this workspace, its data included."""

    kind: Literal["delete"] = "delete"
    workspace: WorkspaceId
    generation: PositiveInt

    @property
    def wanted(self) -> Wanted:
        """The state this command asks for."""
        return Wanted.DELETED


Command = Annotated[SpawnWorkspace | StopWorkspace | DeleteWorkspace, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[Command] = TypeAdapter(Command)


def decode_command(data: bytes) -> Command:
    """Read a command; pydantic.ValidationError if it is none."""
    return _ADAPTER.validate_json(data)


def next_generation(now_us: int, last: int) -> int:
    """The hub's time in µs, but always above the last one given."""
    return max(now_us, last + 1)
