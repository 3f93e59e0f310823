"""Who a workspace is: (hub, user, server), and the DNS label that stands for it everywhere."""

import base64
import hashlib
import json
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

HUB_NAME_PATTERN = r"^[a-z][a-z0-9]{0,15}$"
"""No dash: the name is one token of a workspace's DNS label, of every subject and of every bucket."""

LABEL_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""One token of a subject: pools and nodes."""

HubName = Annotated[str, StringConstraints(pattern=HUB_NAME_PATTERN)]
Token = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]

_LABEL_LENGTH = 63
_HASH_LENGTH = 16
"""Characters of five bits each: too many to find a second identity for a name by trying."""

_PLAIN_USER = re.compile(r"[a-z0-9]+")
_PLAIN_SERVER = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LOST = re.compile(r"[^a-z0-9]+")


class WorkspaceId(BaseModel):
    """One workspace of one user; the default server has the empty server name."""

    model_config = ConfigDict(frozen=True)

    hub: HubName
    user: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    server: Annotated[str, StringConstraints(max_length=255)] = ""

    @property
    def name(self) -> str:
        """A DNS label, unique over all deployments: container, record key, subject token.

        `ws-<user>-<hub>[-<server>]` where that can be read back in only one way, else the same made readable
        and cut, followed by `--` and a hash of the whole identity. A plain name never contains `--`.
        """
        if _PLAIN_USER.fullmatch(self.user) and (not self.server or _PLAIN_SERVER.fullmatch(self.server)):
            plain = "-".join(["ws", self.user, self.hub, *([self.server] if self.server else [])])
            if len(plain) <= _LABEL_LENGTH:
                return plain
        return self._hashed_name()

    @property
    def address(self) -> str:
        """How people write it: `user` or `user--server`, the login name of SSH."""
        return f"{self.user}--{self.server}" if self.server else self.user

    def _hashed_name(self) -> str:
        identity = json.dumps([self.hub, self.user, self.server]).encode()
        digest = base64.b32encode(hashlib.sha256(identity).digest()).decode().lower()[:_HASH_LENGTH]
        readable = "-".join(filter(None, ["ws", _slug(self.user), self.hub, _slug(self.server)]))
        return f"{readable[: _LABEL_LENGTH - _HASH_LENGTH - 2].rstrip('-')}--{digest}"

    def __str__(self) -> str:
        return f"{self.user}/{self.server}"


def _slug(text: str) -> str:
    return _LOST.sub("-", text.lower()).strip("-")
