"""A spawner that asks over the bus and believes the worker's record."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import UTC, timedelta
from typing import Any

import structlog
from jupyterhub.spawner import Spawner, SpawnException
from jupyterhub.utils import AnyTimeoutError, wait_for_http_server
from tornado import web
from traitlets import validate

from mlhub_hub.adoption import adopt
from mlhub_hub.auth.deleted_users import SETTINGS_KEY as DELETED_USERS
from mlhub_hub.auth.deleted_users import DeletedUsers
from mlhub_hub.commands import fold
from mlhub_hub.context import HubContext
from mlhub_hub.following import follow
from mlhub_hub.metrics import COMMAND_SECONDS, SPAWNS
from mlhub_hub.progress import progress_of
from mlhub_hub.requester import requester, requester_of
from mlhub_hub.secret_values import SecretValuesMissing
from mlhub_hub.tokens import revoke_token_of
from mlhub_shared.contracts.commands import Command, DeleteWorkspace, SpawnWorkspace, StopWorkspace
from mlhub_shared.contracts.events import Event, EventKind
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.options import split_secrets
from mlhub_shared.contracts.options import validate as validate_options
from mlhub_shared.contracts.policy import OptionsError
from mlhub_shared.contracts.workspace import Phase, Wanted, WorkspaceRecord, WorkspaceSpec
from mlhub_shared.errors import MLHubError, Permanent

log = structlog.get_logger(__name__)

STOPPED_WITHIN = timedelta(seconds=30)
"""How long `stop` waits for the worker; the command stays on the bus, so that a later worker finds it."""

_LEFT_WITHIN = timedelta(seconds=30)
"""How long a start waits for what is being deleted under its name."""

_PROBE_TRY = 5
"""Seconds of one look through the probe frontend before we see whether the workspace is still ready."""

_OWN_ENV = frozenset({"JUPYTERHUB_SERVICE_URL"})
"""What JupyterHub sets and only the worker can know."""


MAX_TITLE = 64
"""Characters of a display name; JupyterHub allows more."""

FOR_ONE_START = {"update", "display_name"}
"""What among the options is not kept with them."""


def kept_options(options: dict[str, Any]) -> dict[str, Any]:
    """What stays with a workspace of the options that somebody gave: no secret value, and nothing for one start."""
    return {name: value for name, value in split_secrets(options)[0].items() if name not in FOR_ONE_START}


class BusSpawner(Spawner):
    """One workspace. Keeps nothing that the bus does not know, so that the next hub can go on where this one died."""

    def __init__(self, **kwargs: Any) -> None:
        self._generation = 0
        self._is_abandoned = False
        self.asked = asyncio.Event()
        """Set when the bus has the command of this start."""
        self.starting: WorkspaceSpec | None = None
        """What the start that goes on was granted; None where none is known to."""
        super().__init__(**kwargs)
        # JupyterHub would give bea's workspace `x` and the user bea-x one and the same OAuth client.
        self.oauth_client_id = f"jupyterhub-user-{self.workspace.name}"
        self.mlhub.spawners[self.workspace.name] = self

    @property
    def mlhub(self) -> HubContext:
        """The hub's context."""
        context: HubContext = self.user.settings["mlhub"]
        return context

    @property
    def workspace(self) -> WorkspaceId:
        """Whose workspace this is."""
        return self.mlhub.workspace(self.user.name, self.name)

    @property
    def generation(self) -> int:
        """Of its last start as far as this hub has made or adopted it; 0: none."""
        return self._generation

    @property
    def record(self) -> WorkspaceRecord | None:
        """What the worker last said of it."""
        return self.mlhub.workspaces.value(self.workspace.name)

    @validate("user_options")
    def _without_secrets(self, proposal: Any) -> dict[str, Any]:
        # JupyterHub shows these in its REST API.
        return kept_options(proposal["value"])

    def get_env(self) -> dict[str, str]:
        """The environment that JupyterHub wants the workspace to have."""
        env = {name: value for name, value in super().get_env().items() if name not in _OWN_ENV and value is not None}
        return {name: str(value) for name, value in env.items()}

    async def start(self) -> str:
        """Ask for the workspace and follow it until it is ready; SpawnException tells why it is not."""
        try:
            await self._until_left()
            spec = self._spec()
            with COMMAND_SECONDS.time():
                command = await self._ask_for(spec)
            self._generation = command.generation
            self.asked.set()
            await self._decided()
        except SpawnException as error:
            SPAWNS.labels(result=error.reason).inc()
            raise
        finally:
            self.starting = None
            self.mlhub.updates.discard(self.workspace.name)
        SPAWNS.labels(result="ready").inc()
        return self.mlhub.settings.probe_url

    async def get_url(self) -> str:
        """Where JupyterHub may look whether the workspace answers; a spawn in flight is waited for and adopted."""
        record, command = self.record, None
        if record is not None and record.phase is Phase.READY and await self._answers(within=1):
            return f"{self.mlhub.settings.probe_url}{self.server.base_url}"
        with suppress(MLHubError):
            command = await self.mlhub.commands.last(self.workspace)
        generations = [wish.generation for wish in (record, command) if wish and wish.wanted is Wanted.RUNNING]
        self._generation = max(generations, default=0)
        log.info("spawn.adopted", workspace=self.workspace.name, generation=self._generation)
        self.starting = command.spec if isinstance(command, SpawnWorkspace) else None
        try:
            is_decided = await adopt(self, self._decided())
        finally:
            self.starting = None
            is_up = self.record is not None and self.record.phase is Phase.READY
        # Nobody is to wait for a workspace that will not come: the hub itself answers the check at once.
        self._is_abandoned = not is_decided
        return (self.mlhub.settings.probe_url if is_decided and is_up else self.mlhub.settings.self_url) + (
            self.server.base_url if self.server else "/"
        )

    async def get_options_form(self) -> str:
        """Nothing: our own page asks for options, and who may choose none starts at once."""
        return ""

    def start_polling(self) -> None:
        """Poll now and then, but never for a spawn that was cancelled while it was being adopted."""
        if not self._is_abandoned:
            super().start_polling()

    async def poll(self) -> int | None:
        """None while the workspace runs, is about to, or nobody can say; never raises."""
        if (record := self.record) is not None and record.phase.is_active:
            return None
        try:
            command = await self.mlhub.commands.last(self.workspace)
        except MLHubError as error:
            log.warning("poll.no_answer", workspace=self.workspace.name, error=str(error))
            return None
        if command is None and self.record is None and self.mlhub.may_come_back(self.workspace):
            return None
        return fold(self.record, command)

    async def stop(self, now: bool = False) -> None:
        """Have the workspace stopped, and wait for it; without bus or worker the wish is kept and outlives the wait."""
        with suppress(MLHubError):
            if self.record is None and await self.mlhub.commands.last(self.workspace) is None:
                return
        generation, wanted_by = 0, self._requester()

        async def build(given: int) -> Command:
            nonlocal generation
            generation = given
            return StopWorkspace(workspace=self.workspace, generation=given, requester=wanted_by)

        delivery = self.mlhub.bus.run(self.mlhub.commands.deliver(self.workspace, build))
        await asyncio.wait([delivery], timeout=STOPPED_WITHIN.total_seconds())
        try:
            await self.mlhub.workspaces.wait(
                self.workspace.name,
                lambda entry: entry is None or (entry.value.generation >= generation and not _is_up(entry.value)),
                timeout=STOPPED_WITHIN,
            )
        except TimeoutError:
            log.warning("stop.not_yet", workspace=self.workspace.name)

    def run_post_stop_hook(self) -> Any:
        """However the workspace has ended, its token ends with it."""
        revoke_token_of(self.user, self.name)
        return super().run_post_stop_hook()

    async def delete_forever(self) -> None:
        """Have nothing left of the workspace; safe to repeat."""
        workspace, context, wanted_by = self.workspace, self.mlhub, self._requester()

        async def build(generation: int) -> Command:
            return DeleteWorkspace(workspace=workspace, generation=generation, requester=wanted_by)

        with suppress(MLHubError):
            if self.record is None and await context.commands.last(workspace) is None:
                await context.secret_values.forget(workspace)
                return
        delivery = context.bus.run(context.commands.deliver(workspace, build))
        await asyncio.wait([delivery], timeout=STOPPED_WITHIN.total_seconds())

    async def rename(self, old_name: str, new_name: str) -> None:
        """Only a workspace that never ran can have another name: its data lies under the old one."""
        old, new = (self.mlhub.workspace(self.user.name, name) for name in (old_name, new_name))
        if await self.mlhub.trace_of(old) is not None:
            raise web.HTTPError(400, "This workspace has run under its name, and its data lies there: it must keep it.")
        try:
            await self.mlhub.secret_values.move(old, new)
        except MLHubError:
            raise web.HTTPError(503, "The secret values could not be moved. Try again in a moment.") from None

    def progress(self) -> AsyncGenerator[dict[str, Any], None]:
        """What happened to this spawn so far, then what happens, until it is decided."""
        return progress_of(self.mlhub, self.workspace, lambda: self._generation)

    def _spec(self) -> WorkspaceSpec:
        try:
            spec = validate_options(self.user_options, self.mlhub.policy)
        except OptionsError as error:
            raise SpawnException(str(error), reason="invalid") from None
        title = self.orm_spawner.display_name
        given = {
            "display_name": title[:MAX_TITLE] if title and title != self.name else None,
            "update": self.workspace.name in self.mlhub.updates,
        }
        return spec.model_copy(update=given)

    async def _until_left(self) -> None:
        """What was deleted goes first: nobody is to find it again, least of all the next user of the same name."""
        record = self.record
        if record is None:
            return
        try:
            if await self._was_deleted(record):
                await self.mlhub.workspaces.wait(
                    record.name,
                    lambda entry: entry is None or entry.value.generation > record.generation,
                    timeout=_LEFT_WITHIN,
                )
        except TimeoutError:
            raise SpawnException(
                "The workspace that had this name is still being deleted. Please try again later.", reason="taken"
            ) from None
        except MLHubError as error:
            raise _bus_away(error) from None

    async def _was_deleted(self, record: WorkspaceRecord) -> bool:
        """Whether its worker, when it said this, did not know yet that it has to go."""
        last = await self.mlhub.commands.last(self.workspace)
        if isinstance(last, DeleteWorkspace) and last.generation > record.generation:
            return True
        if record.requested_at >= self.user.orm_user.created.replace(tzinfo=UTC):
            return False
        deleted: DeletedUsers = self.user.settings[DELETED_USERS]
        return await deleted.was_deleted(self.user.name, since=record.requested_at)

    async def _ask_for(self, spec: WorkspaceSpec) -> SpawnWorkspace:
        context, workspace, wanted_by = self.mlhub, self.workspace, self._requester()

        async def build(generation: int) -> Command:
            command = SpawnWorkspace(
                workspace=workspace,
                generation=generation,
                base_url=self.server.base_url,
                spec=spec,
                requester=wanted_by,
            )
            requested = Event(
                kind=EventKind.WORKSPACE_REQUESTED,
                workspace=workspace,
                generation=generation,
                requester=wanted_by,
                correlation_id=command.correlation_id,
                message="Requested",
                progress=0,
            )
            self._generation = generation
            await asyncio.gather(
                context.bus.emit(requested),
                context.secret_values.write(
                    workspace, generation=generation, env=self.get_env(), names=spec.secret_env
                ),
            )
            return command

        try:
            command = await context.commands.issue(workspace, build)
        except SecretValuesMissing as error:
            raise SpawnException(str(error), reason="secrets-lost") from None
        except Permanent as error:
            raise SpawnException(str(error), reason="refused") from None
        except MLHubError as error:
            raise _bus_away(error) from None
        assert isinstance(command, SpawnWorkspace)  # noqa: S101
        return command

    async def _decided(self) -> None:
        while True:
            record = await follow(self.mlhub, self.workspace, self._generation)
            _raise_unless_ready(record)
            # JupyterHub gives up on a server that does not answer in seconds. A proxy that is just starting must not
            # cost a workspace, so the hub looks first, for as long as the workspace is ready.
            if await self._answers(within=_PROBE_TRY):
                return

    async def _answers(self, *, within: float) -> bool:
        try:
            await wait_for_http_server(f"{self.mlhub.settings.probe_url}{self.server.base_url}api", timeout=within)
        except AnyTimeoutError:
            return False
        return True

    def _requester(self) -> str:
        return requester_of(self.handler) if self.handler else requester()


def _bus_away(error: MLHubError) -> SpawnException:
    return SpawnException(
        "The hub can't reach its message bus. Please try again in a moment.",
        reason="bus-away",
        status_code=503,
        log_message=str(error),
    )


def _is_up(record: WorkspaceRecord) -> bool:
    return record.phase.is_active or record.phase is Phase.STOPPING


def _raise_unless_ready(record: WorkspaceRecord | None) -> None:
    if record is not None and record.phase is Phase.READY:
        return
    if record is None:
        message = "Nothing is known of the workspace any more: it was deleted, or the bus lost it. Start it again."
        raise SpawnException(message, reason="gone", status_code=503)
    if record.wanted is not Wanted.RUNNING or record.phase is not Phase.FAILED:
        raise SpawnException("The workspace was stopped before it was ready.", reason="stopped", status_code=409)
    reason = record.reason or "failed"
    raise SpawnException(
        record.message or "The workspace failed to start.",
        reason=str(reason),
        status_code=400 if reason == "invalid" else 503,
    )
