"""The API's refusals as the worker's errors, at this edge and nowhere else. Pure.

BackendError        the cluster says no
├── Missing         there is no such thing
└── Taken           its name is taken
Temporary
├── ApiAway         nobody knows what became of the call
├── Expired         what happened since then is not known any more: list again
├── Forbidden       the Role lacks a verb, or the API server has just been started
├── Moved           it is not what it was when it was looked at
└── NoRoom          a quota is full
"""

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import aiohttp

from mlhub_shared.contracts.workspace import Reason
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError
from mlhub_spawner_worker.backends.kubernetes.rights import RIGHTS, Right

_LONGEST = 600
"""Characters of an answer that people are shown."""

_MOST_DELAY = 5.0
"""Seconds; no answer makes the worker wait for longer: it does nothing else for that workspace meanwhile."""

_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<most>.+)"
)

_INADMISSIBLE = re.compile(
    r"failed quota|violates PodSecurity|admission webhook|no PriorityClass|(maximum|minimum) \S+ usage per"
    r"|limit to request ratio|unable to validate against any security context constraint"
)
"""What a namespace does not take, however often it is asked; the last is OpenShift's."""

_LACKING = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"')


class Missing(BackendError):
    """The cluster knows of no such thing."""


class Taken(BackendError):
    """Something of that name is there, or is just going."""


class ApiAway(Temporary):
    """The API server did not answer, or not now; the call may have had its effect all the same."""


def unheard(error: Exception) -> ApiAway:
    """Why nothing was heard of the API server, for people: what broke stands in the cause, for logs."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ApiAway("The Kubernetes API shows a certificate that the worker does not trust")
    return ApiAway("The Kubernetes API does not answer")


class Expired(Temporary):
    """What happened since then is not known any more."""


class Forbidden(Temporary):
    """The worker lacks a right; right after an API server's start it may just not know of it yet."""


class Moved(Temporary):
    """It is not what it was when it was looked at."""


class NoRoom(Temporary):
    """A quota is full; room comes back when something else has gone."""


Refusal = BackendError | Temporary


def refusal(status: int, body: str, *, right: Right, namespace: str, name: str = "", retry_after: str = "") -> Refusal:
    """The error that stands for an answer; `name`: of the one thing that the call was about."""
    answer = _parsed(body)
    text = _text(answer, body)
    if status == 410 or (status == 504 and "Too large resource version" in text):
        return Expired(text)
    if status == 429 or status >= 500:
        why = "it has too much to do" if status == 429 else text or str(status)
        return ApiAway(f"The Kubernetes API can't {right} now: {why}", delay=_delay(retry_after))
    match status:
        case 401:
            return Forbidden("The Kubernetes API does not know the worker: its token is not accepted")
        case 403:
            return _forbidden(text, right, namespace)
        case 404:
            return _not_found(answer, text, right, namespace, name)
        case 409:
            is_taken = answer.get("reason") == "AlreadyExists"
            return Taken(f"Something of that name is there: {text}") if is_taken else Moved(f"It has changed: {text}")
        case 422:
            return BackendError(f"The cluster refuses it: {_causes(answer) or text}", reason=Reason.INVALID)
    return BackendError(f"The cluster refuses it: {text or f'HTTP {status}'}")


def _not_found(answer: dict[str, Any], text: str, right: Right, namespace: str, name: str) -> Refusal:
    """Only what the API server itself says of this very thing: anything on the way there has pages of its own."""
    details = answer.get("details")
    told: dict[str, Any] = details if isinstance(details, dict) else {}
    missing = (answer.get("reason"), told.get("kind"), told.get("name"))
    if name and missing == ("NotFound", right.resource.partition("/")[0], name):
        return Missing(f"There is no such thing: {text}")
    if missing == ("NotFound", "namespaces", namespace):
        return Temporary(f"The namespace {namespace} for workspaces does not exist: an administrator must make it")
    return ApiAway(f"The Kubernetes API can't {right} now: {text or 'HTTP 404'}")


def _forbidden(text: str, asked: Right, namespace: str) -> Refusal:
    if (lacking := _LACKING.search(text)) is not None:
        # Not always what was asked: to apply is to create, too.
        known = (right for right in RIGHTS if (right.verb, right.resource) == (lacking["verb"], lacking["resource"]))
        right = next(known, asked)
        return Forbidden(
            f"The worker may not {right} in the namespace {namespace}, and can't {right.purpose} without: an "
            "administrator must give its Role that verb"
        )
    if (full := _QUOTA.search(text)) is not None:
        return NoRoom(
            f"The quota {full['name']} of the namespace {namespace} is full: {full['asked']} are asked for, "
            f"{full['used']} of {full['most']} are in use"
        )
    if _INADMISSIBLE.search(text):
        return BackendError(f"The namespace {namespace} does not admit it: {text}")
    return Temporary(f"The cluster does not admit it now: {text or 'forbidden'}")


def _parsed(body: str) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _text(answer: dict[str, Any], body: str) -> str:
    return str(answer.get("message") or ("" if answer else body)).strip()[:_LONGEST]


def _causes(answer: dict[str, Any]) -> str:
    causes: Iterable[dict[str, Any]] = (answer.get("details") or {}).get("causes") or ()
    return "; ".join(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes)[:_LONGEST]


def _delay(retry_after: str) -> timedelta:
    seconds = float(retry_after) if re.fullmatch(r"\d{1,6}", retry_after) else 1.0
    return timedelta(seconds=min(max(seconds, 0.2), _MOST_DELAY))
