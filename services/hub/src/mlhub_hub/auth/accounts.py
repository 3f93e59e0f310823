"""What may be done with accounts; each function is one transaction, and none awaits."""

import hashlib
import hmac
from datetime import datetime

from jupyterhub import orm
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from mlhub_hub.auth.lockout import Failures, Limits, after_failure, remaining_lock
from mlhub_hub.auth.tables import Account, Approval, FailedLogins, FirstAdmin, SshKeyRow


def find(db: Session, name: str) -> Account | None:
    """The account as the database has it now."""
    return db.get(Account, name, populate_existing=True)


def is_taken(db: Session, name: str) -> bool:
    """Has somebody an account of this name, or waits for one? A rejected request keeps nobody else from asking."""
    account = find(db, name)
    return account is not None and account.approval != Approval.REJECTED


def sign_up(db: Session, name: str, password_hash: str, *, open_signup: bool, admins: set[str], now: datetime) -> bool:
    """Make an account unless the name is taken or kept for the first admin; True if it may log in at once."""
    if is_taken(db, name) or db.get(FirstAdmin, name) is not None:
        return False
    # A name that is an admin's, a user's already, or was rejected, is never given away without anybody's looking.
    precious = name in admins or orm.User.find(db, name) is not None or find(db, name) is not None
    approved = open_signup and not precious
    db.merge(
        Account(
            name=name,
            password_hash=password_hash,
            approval=Approval.APPROVED if approved else Approval.PENDING,
            created_at=now,
            decided_at=now if approved else None,
            decided_by=None,
        )
    )
    db.commit()
    return approved


def make_admin(db: Session, name: str, password_hash: str, *, now: datetime) -> None:
    """Give the first admin an account; the one-time link, if there was one, is used up."""
    account = find(db, name) or Account(name=name, created_at=now)
    account.password_hash = password_hash
    account.approval, account.decided_at = Approval.APPROVED, now
    db.add(account)
    db.execute(delete(FirstAdmin).where(FirstAdmin.name == name))
    db.commit()


def claims_first_admin(db: Session, name: str, token: str) -> bool:
    """Is this the token of the link that was printed for that name?"""
    kept = db.get(FirstAdmin, name, populate_existing=True)
    digest = hashlib.sha256(token.encode()).hexdigest()
    return hmac.compare_digest(digest, kept.token_sha256 if kept else "") and kept is not None


def first_admin_name(db: Session, token: str) -> str | None:
    """The name that the printed link is for; None if there is no such link."""
    names = db.scalars(select(FirstAdmin.name))
    return next((name for name in names if claims_first_admin(db, name, token)), None)


def decide(db: Session, name: str, approval: Approval, *, by: str, now: datetime) -> Account | None:
    """Approve or reject, also what was decided before; None if there is no such account.

    To reject what was approved once withdraws it; else it is but a request, and the user of its name stays as he is.
    """
    account = find(db, name)
    if account is None:
        return None
    if approval is Approval.REJECTED and not account.is_request:
        approval = Approval.WITHDRAWN
    account.approval, account.decided_at, account.decided_by = approval, now, by
    db.commit()
    return account


def set_password(db: Session, name: str, password_hash: str) -> None:
    """Replace the password of an account, if there still is one."""
    account = find(db, name)
    if account is not None:
        account.password_hash = password_hash
        db.commit()


def note_login(db: Session, name: str, *, now: datetime) -> None:
    """Remember when somebody last came in."""
    account = find(db, name)
    if account is not None:
        account.last_login_at = now
        db.commit()


def forget(db: Session, name: str) -> None:
    """Remove an account and its keys."""
    db.execute(delete(Account).where(Account.name == name))
    db.execute(delete(SshKeyRow).where(SshKeyRow.user == name))
    db.commit()


def everybody(db: Session) -> list[Account]:
    """All accounts, those that wait for a decision first, then by name."""
    accounts = list(db.scalars(select(Account)))
    return sorted(accounts, key=lambda account: (account.approval != Approval.PENDING, account.name))


def count_waiting(db: Session) -> int:
    """How many accounts wait for a decision."""
    return db.scalar(select(func.count()).where(Account.approval == Approval.PENDING)) or 0


def seconds_locked(db: Session, keys: list[str], now: datetime) -> int:
    """How long the longest lock of these keys still holds, rounded up; 0 if none does."""
    locks = [remaining_lock(_failures(db.get(FailedLogins, key)), now) for key in keys]
    return max((-int(-lock.total_seconds() // 1) for lock in locks), default=0)


def count_failure(db: Session, limits: dict[str, Limits], now: datetime) -> bool:
    """Count one failure under each key; True if that has locked one of them."""
    locked = False
    for key, limit in limits.items():
        row = db.get(FailedLogins, key) or FailedLogins(key=key)
        failures = after_failure(_failures(row) if row.count else None, now, limit)
        row.count, row.last_at, row.locked_until = failures.count, failures.last_at, failures.locked_until
        db.add(row)
        locked = locked or failures.locked_until is not None
        db.execute(delete(FailedLogins).where(FailedLogins.last_at < now - limit.forget_after))
    db.commit()
    return locked


def clear_failures(db: Session, key: str) -> None:
    """Forget the failures under a key."""
    db.execute(delete(FailedLogins).where(FailedLogins.key == key))
    db.commit()


def _failures(row: FailedLogins | None) -> Failures | None:
    return None if row is None else Failures(row.count, row.last_at, row.locked_until)
