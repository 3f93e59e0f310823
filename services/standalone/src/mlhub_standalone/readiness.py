"""Asking a component whether it works."""

import asyncio
import http.client
import json
import socket
import ssl
from contextlib import suppress

from mlhub_standalone.component import Check, Component

PATIENCE = 3.0
"""Seconds that one question may take."""


async def problem_of(component: Component) -> str | None:
    """What is wrong with a component, in a few words; None if it works."""
    for check in component.checks:
        problem = await asyncio.to_thread(ask, check)
        if problem is not None:
            return problem
    return None


def ask(check: Check) -> str | None:
    """What is wrong, in a few words; None if all is well. Blocks for at most a few seconds."""
    try:
        if check.path:
            return _get(check)
        _connect(check)
    except FileNotFoundError:
        return f"there is no certificate in {check.certificate} yet"
    except ssl.SSLError as error:
        return f"{check.host}:{check.port} does not show the certificate of {check.certificate} ({error.reason})"
    except OSError as error:
        return f"nothing answers on {check.host}:{check.port} ({error.strerror or error})"
    except http.client.HTTPException as error:
        return f"{check.host}:{check.port} does not speak HTTP ({type(error).__name__})"
    return None


def _connect(check: Check) -> None:
    socket.create_connection((check.host, check.port), PATIENCE).close()


def _get(check: Check) -> str | None:
    # Not by a library that would send this through a proxy of the environment.
    connection = http.client.HTTPConnection(check.host, check.port, timeout=PATIENCE)
    if check.certificate:
        connection = http.client.HTTPSConnection(
            check.host, check.port, timeout=PATIENCE, context=_trusting(check.certificate)
        )
    try:
        connection.request("GET", check.path)
        answer = connection.getresponse()
        body = answer.read(65536)
    finally:
        connection.close()
    return None if answer.status < 400 else _reason(answer.status, body)


def _trusting(certificate: str) -> ssl.SSLContext:
    """That certificate alone, whoever signed it and whatever it calls this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def _reason(status: int, body: bytes) -> str:
    with suppress(ValueError):
        answer = json.loads(body)
        if isinstance(answer, dict) and isinstance(answer.get("problems"), dict):
            return "; ".join(f"{name}: {problem}" for name, problem in answer["problems"].items())
        if isinstance(answer, dict) and isinstance(answer.get("status"), str):
            return str(answer["status"])
    return f"it answers {status}"
