"""What the hub's database keeps of accounts and keys, beside JupyterHub's own tables."""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import DDL, DateTime, Dialect, Engine, String, TypeDecorator, inspect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateColumn


class Approval(StrEnum):
    """What an administrator has decided about an account."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    """Never approved: nobody has come in by this account."""
    WITHDRAWN = "withdrawn"
    """Was approved once."""


class UtcDateTime(TypeDecorator[datetime]):
    """A time that is aware in Python; SQLite knows no zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC without saying so."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """What was stored is UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Apart from JupyterHub's base, whose migrations leave these tables alone."""


class Account(Base):
    """Somebody who signed up."""

    __tablename__ = "mlhub_accounts"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    approval: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    decided_by: Mapped[str | None] = mapped_column(String(255))
    """Who approved or rejected; None where nobody had to."""
    last_login_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def is_approved(self) -> bool:
        """May log in."""
        return self.approval == Approval.APPROVED

    @property
    def is_request(self) -> bool:
        """Nobody has approved it yet: whatever user has its name is not known to be whoever signed up."""
        return self.approval in {Approval.PENDING, Approval.REJECTED}

    @property
    def is_withdrawn(self) -> bool:
        """The user of this name may do nothing any more."""
        return self.approval == Approval.WITHDRAWN


class FailedLogins(Base):
    """Failures in a row of one name from one address, or of one address."""

    __tablename__ = "mlhub_failed_logins"

    key: Mapped[str] = mapped_column(String(400), primary_key=True)
    count: Mapped[int]
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime)


class FirstAdmin(Base):
    """The name kept for the first admin until the one-time link is used."""

    __tablename__ = "mlhub_first_admin"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SshKeyRow(Base):
    """A public key that logs a user in over SSH; the bucket on the bus is made from these."""

    __tablename__ = "mlhub_ssh_keys"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(String(255), index=True)
    label: Mapped[str] = mapped_column(String(100))
    public_key: Mapped[str] = mapped_column(String(8192))
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_from: Mapped[str | None] = mapped_column(String(64))
    """Address."""


class SshSetup(Base):
    """A token that registers one key of its user, once."""

    __tablename__ = "mlhub_ssh_setups"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user: Mapped[str] = mapped_column(String(255), index=True)
    owner: Mapped[str] = mapped_column(String(255))
    """Of the workspace that the computer is set up for."""
    server: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DeletedUser(Base):
    """A deletion that the bus does not know of yet: written in the same transaction, gone when it is told."""

    __tablename__ = "mlhub_deleted_users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """Of the event."""
    user: Mapped[str] = mapped_column(String(255))
    requester: Mapped[str] = mapped_column(String(300))
    deleted_at: Mapped[datetime] = mapped_column(UtcDateTime)


def create_tables(engine: Engine) -> None:
    """Make what is missing, also columns of tables that an earlier hub has made; safe to repeat."""
    Base.metadata.create_all(engine)
    present = inspect(engine)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            known = {column["name"] for column in present.get_columns(table.name)}
            for column in table.columns:
                if column.name not in known:
                    definition = CreateColumn(column).compile(dialect=engine.dialect)
                    connection.execute(DDL(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
