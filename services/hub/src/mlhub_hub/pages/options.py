"""Making a workspace, and changing what it is started with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.slugs import is_valid_safe_slug
from jupyterhub.user import User
from tornado import web

from mlhub_hub import options as checked
from mlhub_hub.accepted import AcceptedSpawns
from mlhub_hub.alone import alone
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.form import (
    Formdata,
    FormView,
    check,
    form_of_link,
    options_from_form,
    unknown_in_link,
    view_of_form,
    view_of_options,
)
from mlhub_hub.pages.room import Room, room_for
from mlhub_hub.pages.workspaces import server_of
from mlhub_hub.server_names import RESERVED, WHY_RESERVED
from mlhub_hub.spawner import MAX_TITLE
from mlhub_hub.totals import others_up
from mlhub_shared.contracts.policy import OptionsError

NAME_PATTERN = "[a-z](-?[a-z0-9])*"
"""JupyterHub's rule, for the browser: it begins with a letter, has no two dashes in a row and none at its end."""

NAME_RULE = (
    "Lower-case letters, digits and single dashes; begins with a letter, ends with a letter or digit; at most 30."
)

_LINKED = "opt-"
"""How JupyterHub marks options in the query of a link."""

_ONLY_ADMINS = "Only an administrator may change options here."

_SAVE = "save"
"""What the button sends that keeps the options without starting."""


@dataclass(frozen=True)
class _Asked:
    """A form that was sent, and what is wrong with it."""

    formdata: Formdata
    options: dict[str, Any]
    title: str
    errors: dict[str, str]


class _OptionsForm(AcceptedSpawns, PageHandler, SpawnHandler):
    """The form, sent to JupyterHub's own way to start a server.

    Links only fill it in: anybody can make somebody else's browser follow one.
    """

    @property
    def linked(self) -> dict[str, str]:
        """The options that the link to this page names."""
        arguments = self.request.query_arguments.items()
        return {
            key.removeprefix(_LINKED): values[-1].decode("utf-8", "replace")
            for key, values in arguments
            if key.startswith(_LINKED)
        }

    def append_query_parameters(self, url: str, exclude: list[str] | None = None) -> str:
        """Add this request's query to an address, without options: there may be secrets among them."""
        options = [key for key in self.request.query_arguments if key.startswith(_LINKED)]
        longer: str = super().append_query_parameters(url, [*(exclude or ["next"]), *options])
        return longer

    def room(self, user: User, server: str) -> Room:
        """What there is for this workspace."""
        return room_for(self.context, self.context.workspace(user.name, server))

    def filled(self, user: User, server: str) -> FormView:
        """The form with what the workspace was last given."""
        orm_spawner = user.orm_spawners.get(server)
        given = (orm_spawner.user_options if orm_spawner is not None else None) or {}
        form = view_of_options(given, self.context.policy, self.room(user, server).largest)
        title = server_of(user, server).display_name
        return replace(form, values=form.values | {"display_name": "" if title == server else title})

    async def _show_form(self, user: User, form: FormView, *, server: str | None, is_linked: bool = False) -> None:
        self.set_status(400 if form.errors else 200)
        await self.show(
            "spawn.html",
            form=form,
            owner=user,
            for_user=user,
            server=server_of(user, server or ""),
            is_new=server is None,
            taken=sorted(name for name in user.orm_spawners if name),
            name_pattern=NAME_PATTERN,
            name_rule=NAME_RULE,
            max_title=MAX_TITLE,
            room=self.room(user, server or ""),
            home_url=self.home_url(user),
            is_linked=is_linked,
        )

    async def _show_link(self, user: User, *, server: str | None, names: dict[str, str]) -> None:
        """The form as its link fills it in, with what would be refused; `names`: what else to put into it."""
        formdata = {key: [value] for key, value in names.items()} | form_of_link(self.linked)
        asked = self._asked(user, server or "", formdata, is_start=True)
        errors = asked.errors | unknown_in_link(self.linked)
        form = view_of_form(formdata, self.context.policy, errors, self.room(user, server or "").largest)
        await self._show_form(user, form, server=server, is_linked=True)

    def _sent(self) -> Formdata:
        arguments = self.request.body_arguments
        return {key: [value.decode("utf-8", "replace") for value in values] for key, values in arguments.items()}

    def _asked(self, user: User, server: str, formdata: Formdata, *, is_start: bool) -> _Asked:
        options, title = options_from_form(formdata), (formdata.get("display_name") or [""])[0]
        others = others_up(self.context, self.context.workspace(user.name, server)) if is_start else []
        errors = check(options, self.context.policy_now() if is_start else self.context.policy, others)
        try:
            title = checked.title_of({"display_name": title}) or server
        except OptionsError:
            errors["display_name"] = f"At most {MAX_TITLE} letters, digits, signs and single spaces."
        return _Asked(formdata, options, title, errors)

    async def _do(self, user: User, server: str | None, asked: _Asked, action: Callable[[], Awaitable[None]]) -> None:
        """Do it, or show what is wrong."""
        errors = asked.errors
        if not errors:
            try:
                await action()
            except web.HTTPError as error:
                errors = {"form": str(error.get_message())}
            else:
                return
        largest = self.room(user, server or "").largest
        form = view_of_form(asked.formdata, self.context.policy, errors, largest)
        await self._show_form(user, form, server=server)

    async def _start(self, user: User, server: str, title: str, options: dict[str, Any]) -> None:
        async with alone(self.context, user.name, [server]):
            spawner = user.get_or_create_spawner(server, title, replace_failed=True)
            if spawner.active:
                raise web.HTTPError(409, "It is running or about to: stop it first.")
            spawner.orm_spawner.display_name = title
            pending_url = self._get_pending_url(user, server)
            await self._wrap_spawn_single_user(user, server, title, spawner, pending_url, options)


class OptionsPage(_OptionsForm):
    """`/spawn/USER[/SERVER]`: the options of a workspace that there is, and start."""

    @web.authenticated
    async def get(self, user_name: str | None = None, server_name: str = "") -> None:
        """The form, filled in with what was used last, or as the link says."""
        user = self._owner(user_name)
        if server_name and server_name not in user.orm_spawners:
            # JupyterHub's links to make a named server lead here.
            options = {f"{_LINKED}{key}": value for key, value in self.linked.items()}
            self.redirect(self.page_url("new-workspace", user=user.name, name=server_name, **options))
            return
        spawner = user.spawners.get(server_name) if server_name in user.spawners else None
        if spawner is not None and spawner.active:
            pending_url = self._get_pending_url(user, server_name)
            self.redirect(self.get_next_url(user, user.server_url(server_name)) if spawner.ready else pending_url)
        elif not self._may_change(user, server_name):
            await self._start_as_it_is(user, server_name)
        elif self.linked:
            title = self.filled(user, server_name).values["display_name"]
            await self._show_link(user, server=server_name, names={"display_name": title})
        else:
            await self._show_form(user, self.filled(user, server_name), server=server_name)

    async def _start_as_it_is(self, user: User, server: str) -> None:
        """There is nothing to choose for its user, so the link to this page is JupyterHub's to start it."""
        if self.linked:
            raise web.HTTPError(403, _ONLY_ADMINS)
        async with alone(self.context, user.name, [server]):
            await self._get(user_name=user.name, server_name=server, display_name=server)

    def _get_user_options(self, query_options: dict[str, list[str]]) -> dict[str, list[str]]:
        """None of JupyterHub's options in a query, whatever they are called."""
        return {}

    @web.authenticated
    async def post(self, user_name: str | None = None, server_name: str = "", display_name: str = "") -> None:
        """Keep these options, and start with them unless they are only to be kept."""
        user = self._owner(user_name)
        if not self._may_change(user, server_name):
            raise web.HTTPError(403, _ONLY_ADMINS)
        is_start = self.form_value("then") != _SAVE
        asked = self._asked(user, server_name, self._sent(), is_start=is_start)
        if "display_name" not in asked.formdata:
            asked = replace(asked, title=server_of(user, server_name).display_name or server_name)

        async def act() -> None:
            if is_start:
                await self._start(user, server_name, asked.title, asked.options)
            else:
                await self._save(user, server_name, asked.title, asked.options)

        await self._do(user, server_name, asked, act)

    async def _save(self, user: User, server: str, title: str, options: dict[str, Any]) -> None:
        async with alone(self.context, user.name, [server]):
            spawner = user.get_or_create_spawner(server, title)
            if spawner.active:
                raise web.HTTPError(409, "It is running or about to: stop it first.")
            spawner.orm_spawner.user_options = options
            # JupyterHub starts it with what its wrapper remembers.
            spawner.user_options = spawner.orm_spawner.user_options
            spawner.orm_spawner.display_name = title
            self.db.commit()
            workspace = self.context.workspace(user.name, server)
            await checked.accept(self.context, workspace, spawner.orm_spawner)
        self.redirect(self.home_url(user))

    def _owner(self, user_name: str | None) -> User:
        return self.user_named(user_name or self.current_user.name, scope="start:servers")

    def _may_change(self, user: User, server: str) -> bool:
        if server and server not in user.orm_spawners:
            raise web.HTTPError(404, "There is no such workspace.")
        return self.rights_over(user).change_options


class NewWorkspacePage(_OptionsForm):
    """`/new-workspace[?user=]`: a named workspace that there isn't yet."""

    @web.authenticated
    async def get(self, *_: str) -> None:
        """The form, empty or as the link says."""
        user = self._owner()
        names = {key: self.get_query_argument(key, "") for key in ("name", "display_name")}
        if self.linked:
            await self._show_link(user, server=None, names=names)
            return
        form = view_of_options({}, self.context.policy, self.room(user, "").largest)
        await self._show_form(user, replace(form, values=form.values | names), server=None)

    @web.authenticated
    async def post(self, *_: str) -> None:
        """Make it and start it."""
        user, name = self._owner(), self.form_value("name")
        asked = self._asked(user, name, self._sent(), is_start=True)
        asked = replace(asked, errors=asked.errors | self._wrong_name(user, name))

        async def act() -> None:
            await self._check_named_server_request(user, name, asked.title)
            await self._start(user, name, asked.title, asked.options)

        await self._do(user, None, asked, act)

    def _owner(self) -> User:
        name = self.get_query_argument("user", "") or self.current_user.name
        user = self.user_named(name, scope="start:servers")
        if not self.rights_over(user).create:
            raise web.HTTPError(403, "Workspaces are made by an administrator here.")
        return user

    def _wrong_name(self, user: User, name: str) -> dict[str, str]:
        if not is_valid_safe_slug(name):
            return {"name": "This does not follow the rule above."}
        if name in user.orm_spawners:
            return {"name": "There is a workspace of this name already."}
        return {"name": WHY_RESERVED} if name in RESERVED else {}
