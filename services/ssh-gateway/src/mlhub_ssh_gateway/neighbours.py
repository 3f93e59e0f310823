"""The workspaces by the names that forwarded connections may give."""

from mlhub_shared.bus import Table
from mlhub_shared.contracts.identity import WorkspaceId
from mlhub_shared.contracts.workspace import Endpoint, WorkspaceRecord
from mlhub_ssh_gateway.access import Login
from mlhub_ssh_gateway.destinations import own_ssh
from mlhub_ssh_gateway.own_keys import OwnKeys


class Neighbours:
    """Looks names up in the records."""

    def __init__(self, records: Table[WorkspaceRecord], own_keys: OwnKeys) -> None:
        self._records, self._own_keys = records, own_keys

    def named(self, host: str) -> WorkspaceId | None:
        """The workspace of that name."""
        record = self._records.value(host.lower())
        return record.workspace if record else None

    def shown_by(self, login: Login, host: str, port: int) -> tuple[WorkspaceId, Endpoint] | None:
        """The workspace of that name and where its SSH server answers, if it shows the very key of this login now."""
        record = self._records.value(host.lower())
        if record is None or login.fingerprint is None or not self._own_keys.shows(record.workspace, login.fingerprint):
            return None
        endpoint = own_ssh(record, port)
        return (record.workspace, endpoint) if endpoint else None
