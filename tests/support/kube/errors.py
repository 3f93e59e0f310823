"""Refusals, as the server words them."""

import json
from collections.abc import Sequence
from typing import Any

from tests.support.kube.resources import Resource


class ApiError(Exception):
    """Becomes a Status."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details, self.headers = details, headers or {}

    def to_status(self) -> dict[str, Any]:
        """What a client reads."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            status["details"] = self.details
        return status | {"code": self.code}

    def to_json(self) -> bytes:
        """The same, encoded."""
        return json.dumps(self.to_status()).encode()


def _details(resource: Resource, name: str) -> dict[str, Any]:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    """404."""
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, details=_details(resource, name))


def already_exists(resource: Resource, name: str, *, is_going: bool = False) -> ApiError:
    """409: the name is taken, perhaps by what is just being deleted."""
    message = f'{resource.qualified} "{name}" already exists'
    if is_going:
        message = f'object is being deleted: {resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=_details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> ApiError:
    """409: it is another one, or another version."""
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=_details(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403: a right is missing, or admission refuses."""
    named = f'{resource.qualified} "{name}" is forbidden' if name else f"{resource.qualified} is forbidden"
    return ApiError(403, "Forbidden", f"{named}: {why}", details=_details(resource, name))


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def expired(message: str) -> ApiError:
    """410."""
    return ApiError(410, "Expired", message)


Cause = tuple[str, str, str]
"""Field, kind of fault (`Invalid value`, `Required value`, `Forbidden`, …), text."""

_REASONS = {
    "Invalid value": "FieldValueInvalid",
    "Required value": "FieldValueRequired",
    "Forbidden": "FieldValueForbidden",
    "Not found": "FieldValueNotFound",
    "Duplicate value": "FieldValueDuplicate",
    "Unsupported value": "FieldValueNotSupported",
    "Too long": "FieldValueTooLong",
}


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422, with every fault that was found."""
    told = [(field, f"{fault}: {text}" if text else fault, _REASONS[fault]) for field, fault, text in causes]
    text = ", ".join(f"{field}: {message}" for field, message, _ in told)
    listed = f"[{text}]" if len(told) > 1 else text
    details: dict[str, Any] = {"name": name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [{"reason": reason, "message": message, "field": field} for field, message, reason in told]
    group = f".{resource.group}" if resource.group else ""
    return ApiError(422, "Invalid", f'{resource.kind}{group} "{name}" is invalid: {listed}', details=details)
