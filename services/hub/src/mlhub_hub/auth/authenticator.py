"""Names and passwords of the hub's own, with an administrator's approval."""

import secrets
from contextlib import suppress
from typing import Any

from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from jupyterhub.user import User
from sqlalchemy.orm import Session
from tornado import web
from traitlets import Bool, Integer

from mlhub_hub.auth import accounts, names
from mlhub_hub.auth.announce import announce
from mlhub_hub.auth.key_projection import wake_projection
from mlhub_hub.auth.lockout import Limits, network_of
from mlhub_hub.auth.passwords import Passwords, TooBusy, is_outdated
from mlhub_hub.auth.refusals import note_refusal
from mlhub_hub.auth.tables import Approval
from mlhub_shared.contracts.events import EventKind
from mlhub_shared.runtime.clock import utc_now

_ADDRESS_FACTOR = 10
"""Many people may sit behind one address."""

_REFUSED = {
    Approval.PENDING: "Your account waits for an administrator's approval.",
    Approval.REJECTED: "An administrator has not approved this account.",
    Approval.WITHDRAWN: "An administrator has withdrawn this account.",
}


class SignUpAuthenticator(Authenticator):
    """People sign up by themselves, and come in once an administrator has approved."""

    has_accounts = True
    """The pages show sign-up, passwords and approvals."""

    open_signup = Bool(False, config=True, help="Approve everybody who signs up at once.")
    max_failures = Integer(
        5, min=1, config=True, help="Wrong passwords of one name from one address before it has to wait."
    )

    # Approval is decided in `authenticate`: in `check_allowed`, a configuration could bypass it.
    allow_all = Bool(True, config=True)
    auth_refresh_age = Integer(60, config=True)
    refresh_pre_spawn = Bool(True, config=True)
    # Else API tokens would outlive a withdrawn approval.
    auth_refresh_strict = Bool(True, config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.passwords = Passwords()
        self.clock = utc_now

    @property
    def _db(self) -> Session:
        # The application's one session: nothing may be awaited between a change and its commit.
        app: Any = self.parent
        db: Session = app.db
        return db

    def normalize_username(self, username: str) -> str:
        """One way to write each name."""
        normalised: str = super().normalize_username(names.normalise(username))
        return normalised

    def validate_username(self, username: str) -> bool:
        """Whoever makes or renames a user is bound by the rule of sign-up; asked about normalised names."""
        is_ordinary = names.normalise(username) == username and names.why_refused(username) is None
        return is_ordinary and bool(super().validate_username(username))

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> dict[str, Any] | None:
        """The user of a right password and an approved account; None for a wrong one."""
        name = self.normalize_username(data.get("username", ""))[: names.MAX_LENGTH * 4]
        if not await self.check_password(handler, name, data.get("password", "")):
            return None
        account = accounts.find(self._db, name)
        if account is None:
            return None
        if not account.is_approved:
            raise web.HTTPError(403, _REFUSED[Approval(account.approval)])
        if is_outdated(account.password_hash):
            await self._renew_hash(name, account.password_hash, data.get("password", ""))
        accounts.note_login(self._db, name, now=self.clock())
        announce(handler.settings, EventKind.USER_LOGGED_IN, name, by=name, address=_address(handler))
        return {"name": name}

    async def check_password(self, handler: BaseHandler, name: str, password: str) -> bool:
        """Is it this name's password? Counts failures; an HTTP error while it is locked or too much is going on."""
        limits = self._limits(handler, name)
        self._refuse_while_locked(limits, "Too many failed attempts.")
        account = accounts.find(self._db, name)
        try:
            matches = await self.passwords.verify(password, account.password_hash if account else None)
        except TooBusy as error:
            raise web.HTTPError(503, f"{error}; try again in a moment.") from None
        # Of many attempts at once, those beyond the limit must not learn anything either.
        self._refuse_while_locked(limits, "Too many failed attempts.")
        if matches:
            accounts.clear_failures(self._db, next(iter(limits)))
            return True
        note_refusal(handler.settings, name if account else None, _address(handler), how="password")
        if accounts.count_failure(self._db, limits, self.clock()):
            announce(handler.settings, EventKind.USER_LOCKED_OUT, name, by=name, address=_address(handler))
        return False

    def count_sign_up(self, handler: BaseHandler) -> None:
        """Let one address make only so many accounts; an HTTP error when there were too many."""
        limits = {f"sign-up {network_of(_address(handler))}": Limits(allowed=self.max_failures * 4)}
        self._refuse_while_locked(limits, "Too many accounts were asked for.")
        accounts.count_failure(self._db, limits, self.clock())

    async def refresh_user(self, user: User, handler: BaseHandler | None = None) -> bool:
        """May he still do anything? Not once his account is withdrawn.

        Users without an account were made by an administrator or another authenticator. Anybody may ask for an account
        of their name: a request that nobody has approved says nothing about them.
        """
        account = accounts.find(self._db, user.name)
        welcome = account is None or not account.is_withdrawn
        if not welcome and handler is not None and not hasattr(handler, "_token_authenticated"):
            # JupyterHub 6.1 asks for this attribute, but sets it only where there is a token.
            handler._token_authenticated = False
        return welcome

    async def delete_user(self, user: User) -> None:
        """Else the deleted user could log in again."""
        accounts.forget(self._db, user.name)
        wake_projection(user.settings or {})

    def waiting(self) -> int:
        """How many accounts wait for a decision; the pages say it to administrators."""
        return accounts.count_waiting(self._db)

    def end_sessions(self, handler: BaseHandler, name: str, *, but: str | None = None) -> Any:
        """End every session of a user in a browser, in his workspaces too; returns the user, None if there is none.

        `but`: the session whose workspaces stay open. Tokens that he made stay, and are asked about anew.
        """
        user: Any = handler.find_user(name)
        if user is not None:
            user.orm_user.cookie_id = secrets.token_hex(16)
            for token in user.api_tokens:
                if token.session_id and token.session_id != but:
                    self._db.delete(token)
            self._db.commit()
            user._auth_refreshed = None
        return user

    async def _renew_hash(self, name: str, outdated: str, password: str) -> None:
        with suppress(TooBusy):
            renewed = await self.passwords.hash(password)
            account = accounts.find(self._db, name)
            # The password may have been changed meanwhile.
            if account is not None and account.password_hash == outdated:
                accounts.set_password(self._db, name, renewed)

    def _refuse_while_locked(self, limits: dict[str, Limits], why: str) -> None:
        if seconds := accounts.seconds_locked(self._db, list(limits), self.clock()):
            raise web.HTTPError(429, f"{why} Try again in {_in_words(seconds)}.")

    def _limits(self, handler: BaseHandler, name: str) -> dict[str, Limits]:
        # Never by the name alone: anybody could lock the admin out.
        network = network_of(_address(handler))
        return {
            f"{network} {name}": Limits(allowed=self.max_failures),
            network: Limits(allowed=self.max_failures * _ADDRESS_FACTOR),
        }


def _address(handler: BaseHandler) -> str:
    return str(handler.request.remote_ip)


def _in_words(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} seconds"
    return f"{-(-seconds // 60)} minutes"
