"""Sign-up, login, the own account, and who may come in."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jupyterhub import orm
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from tornado import web

from mlhub_hub.auth import accounts, first_admin, names, passwords
from mlhub_hub.auth.announce import announce
from mlhub_hub.auth.authenticator import SignUpAuthenticator
from mlhub_hub.auth.key_projection import wake_projection
from mlhub_hub.auth.passwords import TooBusy
from mlhub_hub.auth.refusals import note_refusal
from mlhub_hub.auth.tables import Account, Approval
from mlhub_hub.pages.base import PageHandler
from mlhub_shared.contracts.events import EventKind

_DECISIONS = {
    "approve": (Approval.APPROVED, EventKind.USER_APPROVED),
    "reject": (Approval.REJECTED, EventKind.USER_REJECTED),
}


def wrong_passwords(password: str, again: str, name: str) -> dict[str, str]:
    """What is wrong with a new password that was typed twice, by field."""
    why = passwords.why_refused(password, name)
    errors = {"password": why} if why else {}
    return errors | ({} if password == again else {"password_again": "The two passwords differ."})


class LoginPage(PageHandler, LoginHandler):
    """JupyterHub's login under the policy of our pages."""

    async def login_user(self, data: dict[str, Any] | None = None) -> User | None:
        """Whoever proves to be him; a failure is told, whichever authenticator found it."""
        user: User | None = await super().login_user(data)
        if user is None and data is not None and not isinstance(self.authenticator, SignUpAuthenticator):
            name = self.authenticator.normalize_username(str(data.get("username", "")))
            known = name if self.find_user(name) is not None else None
            note_refusal(self.settings, known, str(self.request.remote_ip), how="password")
        return user


class SignUpPage(PageHandler):
    """Ask for an account, or make the first admin's by the printed link."""

    async def get(self) -> None:
        """The form."""
        authenticator = self.accounts_authenticator
        token = self.get_query_argument("token", "")
        name = accounts.first_admin_name(self.db, token) if token else None
        if token and name is None:
            raise web.HTTPError(403, "This link was used already, or is not complete. Copy the newest one as a whole.")
        await self._show(name or "", token=token, is_open=authenticator.open_signup)

    async def post(self) -> None:
        """The same answer whether the name was free or not."""
        authenticator = self.accounts_authenticator
        name = names.normalise(self.form_value("username"))
        password, token = self.form_value("password", strip=False), self.form_value("token")
        errors = self._errors(name, password)
        if errors:
            self.set_status(400)
            await self._show(name, token=token, errors=errors, is_open=authenticator.open_signup)
            return
        authenticator.count_sign_up(self)
        try:
            password_hash = await authenticator.passwords.hash(password)
        except TooBusy as error:
            raise web.HTTPError(503, f"{error}; try again in a moment.") from None
        if token:
            self._make_admin(name, password_hash, token)
            may_log_in = True
        else:
            may_log_in = self._sign_up(name, password_hash)
        await self.show("signed_up.html", may_log_in=may_log_in, username=name)

    def _errors(self, name: str, password: str) -> dict[str, str]:
        why = names.why_refused(name)
        wrong_name = {"username": why} if why else {}
        return wrong_name | wrong_passwords(password, self.form_value("password_again", strip=False), name)

    def _make_admin(self, name: str, password_hash: str, token: str) -> None:
        if not accounts.claims_first_admin(self.db, name, token):
            raise web.HTTPError(403, "This link was used already, or is for another name.")
        accounts.make_admin(self.db, name, password_hash, now=self.context.clock())
        first_admin.forget_link(self.context.settings.data_dir)
        announce(self.settings, EventKind.USER_SIGNED_UP, name, by=name, first_admin=True)

    def _sign_up(self, name: str, password_hash: str) -> bool:
        authenticator = self.accounts_authenticator
        known = accounts.is_taken(self.db, name)
        accounts.sign_up(
            self.db,
            name,
            password_hash,
            open_signup=authenticator.open_signup,
            admins=authenticator.admin_users,
            now=self.context.clock(),
        )
        if not known:
            announce(self.settings, EventKind.USER_SIGNED_UP, name, by=name)
        return bool(authenticator.open_signup)

    async def _show(self, name: str, *, token: str, is_open: bool, errors: dict[str, str] | None = None) -> None:
        await self.show(
            "signup.html",
            username=name,
            token=token,
            errors=errors or {},
            is_open=is_open,
            min_length=passwords.MIN_LENGTH,
            max_name_length=names.MAX_LENGTH,
        )


class AccountPage(PageHandler):
    """The own account: password and tokens."""

    @web.authenticated
    async def get(self) -> None:
        """What there is to change."""
        await self._show()

    @web.authenticated
    async def post(self) -> None:
        """Change the password; every other session ends."""
        authenticator = self.accounts_authenticator
        name = self.current_user.name
        account = accounts.find(self.db, name)
        if account is None:
            raise web.HTTPError(404, "You have no password here.")
        new = self.form_value("password", strip=False)
        errors = self._errors(name, new)
        if not errors and not await authenticator.check_password(self, name, self.form_value("current", strip=False)):
            errors["current"] = "This is not your password."
        if errors:
            self.set_status(400)
            await self._show(errors=errors)
            return
        try:
            password_hash = await authenticator.passwords.hash(new)
        except TooBusy as error:
            raise web.HTTPError(503, f"{error}; try again in a moment.") from None
        accounts.set_password(self.db, name, password_hash)
        user = authenticator.end_sessions(self, name, but=self.get_session_cookie())
        self.set_hub_cookie(user)
        announce(self.settings, EventKind.PASSWORD_CHANGED, name, by=name)
        self.redirect(self.page_url("account", changed="password"))

    def _errors(self, name: str, password: str) -> dict[str, str]:
        return wrong_passwords(password, self.form_value("password_again", strip=False), name)

    async def _show(self, errors: dict[str, str] | None = None) -> None:
        has_accounts = getattr(self.authenticator, "has_accounts", False)
        await self.show(
            "account.html",
            errors=errors or {},
            has_password=has_accounts and accounts.find(self.db, self.current_user.name) is not None,
            is_changed=self.get_query_argument("changed", "") == "password",
            token_url=self.page_url("token"),
            action=self.page_url("account"),
            min_length=passwords.MIN_LENGTH,
        )


@dataclass(frozen=True)
class AccountRow:
    """One account on the page of approvals."""

    name: str
    approval: str
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    last_login_at: datetime | None
    is_admin: bool
    """Is, or will be once approved."""
    has_user: bool
    """Whose workspaces go to whoever asked, once approved."""
    is_self: bool


class ApprovalsPage(PageHandler):
    """Who asked to come in, and who may."""

    @web.authenticated
    @needs_scope("admin:users")
    async def get(self) -> None:
        """Those who wait first."""
        admins = self.accounts_authenticator.admin_users
        everybody = accounts.everybody(self.db)
        rows = [self._row(account, admins) for account in everybody]
        await self.show(
            "approvals.html",
            pending=[row for row in rows if row.approval == Approval.PENDING],
            decided=[row for row in rows if row.approval != Approval.PENDING],
            others=self._without_account({account.name for account in everybody if not account.is_request}),
            action=self.page_url("approvals"),
        )

    @web.authenticated
    @needs_scope("admin:users")
    async def post(self) -> None:
        """Approve or reject, at once and everywhere."""
        authenticator = self.accounts_authenticator
        name, decision = self.form_value("name", strip=False), self.form_value("decision")
        if decision not in _DECISIONS:
            raise web.HTTPError(400, "Approve or reject.")
        by = self.current_user.name
        if name == by and decision != "approve":
            raise web.HTTPError(400, "You can't lock yourself out.")
        approval, kind = _DECISIONS[decision]
        account = accounts.decide(self.db, name, approval, by=by, now=self.context.clock())
        if account is None:
            raise web.HTTPError(404, "There is no such account any more.")
        if account.is_withdrawn:
            authenticator.end_sessions(self, name)
        wake_projection(self.settings)
        announce(self.settings, kind, name, by=by)
        self.redirect(self.page_url("approvals"))

    def _row(self, account: Account, admins: set[str]) -> AccountRow:
        user = orm.User.find(self.db, account.name)
        return AccountRow(
            name=account.name,
            approval=account.approval,
            created_at=account.created_at,
            decided_at=account.decided_at,
            decided_by=account.decided_by,
            last_login_at=account.last_login_at,
            is_admin=account.name in admins or (user is not None and bool(user.admin)),
            has_user=user is not None,
            is_self=account.name == self.current_user.name,
        )

    def _without_account(self, known: set[str]) -> list[str]:
        return sorted(name for (name,) in self.db.query(orm.User.name) if name not in known)
