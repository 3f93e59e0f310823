"""The variables of the first ML Hub: each is honoured, or answered by a sentence that names what is there instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mlhub_standalone.errors import LauncherError


@dataclass(frozen=True)
class Answer:
    """What one old variable comes to: nothing to say where it is honoured as it is."""

    remark: str = ""
    refusal: str = ""
    """Why there can be no start with it."""
    backend: str = ""


@dataclass(frozen=True)
class Answers:
    """What all of them come to."""

    backend: str | None = None
    remarks: list[str] = field(default_factory=list)


def answer(environment: Mapping[str, str]) -> Answers:
    """Read the old variables; LauncherError where one asks for what would be dangerous to ignore."""
    given = {name: environment[name].strip() for name in OLD if environment.get(name, "").strip()}
    answers = {name: OLD[name](value, environment) for name, value in given.items()}
    if refusals := [f"{name}={given[name]}: {it.refusal}" for name, it in answers.items() if it.refusal]:
        raise LauncherError("\n".join(refusals))
    return Answers(
        backend=next((it.backend for it in answers.values() if it.backend), None),
        remarks=[f"{name}={given[name]}: {it.remark}" for name, it in answers.items() if it.remark],
    )


def _honoured(_value: str, _environment: Mapping[str, str]) -> Answer:
    return Answer()


def _told(remark: str) -> Callable[[str, Mapping[str, str]], Answer]:
    return lambda _value, _environment: Answer(remark=remark)


def _told_unless(usual: str, remark: str) -> Callable[[str, Mapping[str, str]], Answer]:
    return lambda value, _environment: Answer(remark="" if value.lower() == usual else remark)


def _execution_mode(value: str, _environment: Mapping[str, str]) -> Answer:
    if value in {"local", "docker"}:
        # `local` was the engine of this machine; without one, nothing ran.
        return Answer(backend="docker" if value == "docker" else "")
    if value == "k8s":
        return Answer(refusal="this is a hub for one machine: on Kubernetes, deploy its services each by itself")
    return Answer(refusal="there are local and docker; the option --backend takes process, docker, or auto")


_ALL_OR_NOTHING = "not used: all parts run; by compose.yaml, each is a service of its own"
_KEYS = "users add their own keys at /hub/ssh-keys, and reach their own workspaces only"

OLD: dict[str, Callable[[str, Mapping[str, str]], Answer]] = {
    "HUB_NAME": _honoured,
    "CLEANUP_INTERVAL_SECONDS": _honoured,
    "DEFAULT_WORKSPACE_PORT": _honoured,
    "EXECUTION_MODE": _execution_mode,
    "SSL_ENABLED": _honoured,
    "START_SSH": _told_unless("true", "SSH always runs, and lets in nobody without a key or token of his own"),
    "START_NGINX": _told_unless("true", _ALL_OR_NOTHING),
    "START_JHUB": _told_unless("true", _ALL_OR_NOTHING),
    "START_CHP": _told_unless("false", "HAProxy has taken the place of configurable-http-proxy, and always runs"),
    "ADDITIONAL_ARGS": _told(
        "not used: there is no configurable-http-proxy any more; JupyterHub's own settings go into "
        "jupyterhub_user_config.py, the proxy's are MLHUB_PROXY_..."
    ),
    "SSH_PERMIT_TARGET_HOST": _told(f"not used: {_KEYS}"),
    "SSH_PERMIT_TARGET_PORT": _told(f"not used: {_KEYS}"),
    "SSH_TARGET_KEY_PATH": _told(f"not used: {_KEYS}"),
    "SSH_TARGET_PUBLICKEY_API_PORT": _told(f"not used: {_KEYS}"),
    "MANUAL_AUTH_FILE": _told(f"not used: {_KEYS}"),
    "SSHD_TARGET": _told("not used: the SSH gateway is a service of its own"),
    "DYNAMIC_WHITELIST_ENABLED": _told_unless(
        "false", "not used: an admin approves each account under Users, and can withdraw it there at any time"
    ),
    "IS_CLEANUP_SERVICE_ENABLED": _told_unless(
        "true", "the clean-up ends what has expired, and always runs; CLEANUP_INTERVAL_SECONDS=-1 ends its sweeps"
    ),
    "DATA_VOLUME_CONTAINER": _told(
        "not used: MLHUB_STANDALONE_DATA_DIR, or the option --data-dir, says where data lie; compose has volumes"
    ),
    "HUB_VERSION": _told("not used: an image's tag says which version it is"),
}
"""Every variable that the image of the first ML Hub knew, with what becomes of it."""
