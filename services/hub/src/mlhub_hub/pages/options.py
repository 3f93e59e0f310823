"""Making a workspace, and changing what it is started with."""

from dataclasses import replace
from typing import Any

from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.slugs import is_valid_display_name, is_valid_safe_slug, normalise_unicode
from jupyterhub.user import User
from tornado import web

from mlhub_hub.accepted import AcceptedSpawns
from mlhub_hub.alone import alone
from mlhub_hub.pages.base import PageHandler
from mlhub_hub.pages.form import FormView, check, options_from_form, view_of_form, view_of_options
from mlhub_hub.pages.room import room_now
from mlhub_hub.pages.workspaces import server_of

NAME_PATTERN = "[a-z](-?[a-z0-9])*"
"""JupyterHub's rule, for the browser: it begins with a letter, has no two dashes in a row and none at its end."""

NAME_RULE = (
    "Lower-case letters, digits and single dashes; begins with a letter, ends with a letter or digit; at most 30."
)


class _OptionsForm(AcceptedSpawns, PageHandler, SpawnHandler):
    """The form, sent to JupyterHub's own way to start a server."""

    async def _show_form(self, user: User, form: FormView, *, server: str | None, status: int = 200) -> None:
        self.set_status(status)
        self.finish(await self._page(user, form, server=server))

    async def _page(self, user: User, form: FormView, *, server: str | None) -> str:
        about = server_of(user, server or "")
        page: str = await self.render_template(
            "spawn.html",
            form=form,
            owner=user,
            for_user=user,
            server=about,
            is_new=server is None,
            taken=sorted(name for name in user.orm_spawners if name),
            name_pattern=NAME_PATTERN,
            name_rule=NAME_RULE,
            room=room_now(self.context),
            home_url=self.home_url(user),
        )
        return page

    def _formdata(self) -> dict[str, list[str]]:
        arguments = self.request.body_arguments
        return {key: [value.decode("utf-8", "replace") for value in values] for key, values in arguments.items()}

    async def _start(self, user: User, server: str, display_name: str, options: dict[str, Any]) -> None:
        async with alone(self.context, user.name, [server]):
            spawner = user.get_or_create_spawner(server, display_name, replace_failed=True)
            if spawner.active:
                raise web.HTTPError(409, "It is running or about to: stop it first.")
            pending_url = self._get_pending_url(user, server)
            await self._wrap_spawn_single_user(user, server, display_name, spawner, pending_url, options)


class OptionsPage(_OptionsForm):
    """`/spawn/USER[/SERVER]`: the options of a workspace that there is, and start."""

    @web.authenticated
    async def get(self, user_name: str | None = None, server_name: str = "") -> None:
        """The form, filled in with what was used last; a link with options in its query starts at once."""
        user = self._owner(user_name)
        spawner = user.spawners.get(server_name) if server_name in user.spawners else None
        asks_for_start = any(key.startswith("opt-") for key in self.request.query_arguments)
        if server_name and server_name not in user.orm_spawners and not asks_for_start:
            # JupyterHub's links to make a named server lead here.
            self.redirect(self.page_url("new-workspace", user=user.name, name=server_name))
            return
        if asks_for_start or (spawner is not None and spawner.active) or not self._may_change(user, server_name):
            async with alone(self.context, user.name, [server_name]):
                await self._get(user_name=user.name, server_name=server_name, display_name=server_name)
            return
        orm_spawner = user.orm_spawners.get(server_name)
        options = (orm_spawner.user_options if orm_spawner is not None else None) or {}
        await self._show_form(user, view_of_options(options, self.context.policy), server=server_name)

    @web.authenticated
    async def post(self, user_name: str | None = None, server_name: str = "", display_name: str = "") -> None:
        """Start with these options."""
        user = self._owner(user_name)
        if not self._may_change(user, server_name):
            raise web.HTTPError(403, "Only an administrator may change options here.")
        formdata = self._formdata()
        options = options_from_form(formdata)
        errors = check(options, self.context.policy)
        if not errors:
            try:
                await self._start(user, server_name, server_of(user, server_name).display_name or server_name, options)
            except web.HTTPError as error:
                errors = {"form": str(error.get_message())}
            else:
                return
        form = view_of_form(formdata, self.context.policy, errors)
        await self._show_form(user, form, server=server_name, status=400)

    def _owner(self, user_name: str | None) -> User:
        return self.user_named(user_name or self.current_user.name, scope="start:servers")

    def _may_change(self, user: User, server: str) -> bool:
        if server and server not in user.orm_spawners:
            raise web.HTTPError(404, "There is no such workspace.")
        return self.rights_over(user).change_options

    async def _render_form(
        self, for_user: User, spawner_options_form: str, message: str | None = "", html_message: str | None = ""
    ) -> str:
        """What JupyterHub shows when it refuses the options of a link."""
        server = self.path_args[1] if len(self.path_args) > 1 else ""
        orm_spawner = for_user.orm_spawners.get(server)
        options = (orm_spawner.user_options if orm_spawner is not None else None) or {}
        form = replace(view_of_options(options, self.context.policy), errors={"form": message or ""})
        return await self._page(for_user, form, server=server)


class NewWorkspacePage(_OptionsForm):
    """`/new-workspace[?user=]`: a named workspace that there isn't yet."""

    @web.authenticated
    async def get(self, *_: str) -> None:
        """The empty form."""
        user = self._owner()
        form = view_of_options({}, self.context.policy)
        names = {key: self.get_query_argument(key, "") for key in ("name", "display_name")}
        await self._show_form(user, replace(form, values=form.values | names), server=None)

    @web.authenticated
    async def post(self, *_: str) -> None:
        """Make it and start it."""
        user = self._owner()
        formdata = self._formdata()
        name = self.form_value("name")
        title = normalise_unicode(" ".join(self.form_value("display_name").split())) or name
        options = options_from_form(formdata)
        errors = check(options, self.context.policy) | self._wrong_names(user, name, title)
        if not errors:
            try:
                await self._check_named_server_request(user, name, title)
                await self._start(user, name, title, options)
            except web.HTTPError as error:
                errors = {"form": str(error.get_message())}
            else:
                return
        form = view_of_form(formdata, self.context.policy, errors)
        await self._show_form(user, form, server=None, status=400)

    def _owner(self) -> User:
        name = self.get_query_argument("user", "") or self.current_user.name
        user = self.user_named(name, scope="start:servers")
        if not self.rights_over(user).create:
            raise web.HTTPError(403, "Workspaces are made by an administrator here.")
        return user

    def _wrong_names(self, user: User, name: str, title: str) -> dict[str, str]:
        errors = {}
        if not is_valid_safe_slug(name):
            errors["name"] = "This does not follow the rule above."
        elif name in user.orm_spawners:
            errors["name"] = "There is a workspace of this name already."
        if name and not is_valid_display_name(title):
            errors["display_name"] = "At most 255 letters, digits, signs and single spaces."
        return errors
