"""What somebody may do with workspaces, in each of the three ways a team uses the hub."""

from dataclasses import dataclass

from mlhub_hub.settings import Workspaces


@dataclass(frozen=True)
class Rights:
    """Everybody may open, start, stop and extend what he has."""

    create: bool
    """Named workspaces."""
    delete: bool
    change_options: bool
    make_default: bool
    """Start the default workspace although nobody has set it up."""


def rights_for(mode: Workspaces, *, is_admin: bool) -> Rights:
    """An admin keeps his rights in every mode."""
    if is_admin or mode is Workspaces.SELF_SERVICE:
        return Rights(create=True, delete=True, change_options=True, make_default=True)
    if mode is Workspaces.ONE_EACH:
        return Rights(create=False, delete=False, change_options=True, make_default=True)
    return Rights(create=False, delete=False, change_options=False, make_default=False)
