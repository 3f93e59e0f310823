import pytest

from mlhub_standalone.earlier import OLD, answer
from mlhub_standalone.errors import LauncherError

IMAGE = {
    "DEFAULT_WORKSPACE_PORT": "8080", "START_NGINX": "true", "START_SSH": "true", "START_JHUB": "true",
    "START_CHP": "false", "EXECUTION_MODE": "local", "HUB_NAME": "mlhub", "CLEANUP_INTERVAL_SECONDS": "3600",
    "DYNAMIC_WHITELIST_ENABLED": "false", "IS_CLEANUP_SERVICE_ENABLED": "true", "SSL_ENABLED": "",
}  # fmt: skip
"""What the image of the first ML Hub set itself."""


def test_what_the_old_image_had_by_default_needs_no_word() -> None:
    answers = answer(IMAGE)
    assert answers.remarks == []
    assert answers.backend is None


def test_of_everything_else_each_is_answered() -> None:
    changed = {
        "START_SSH": "false", "START_NGINX": "false", "START_JHUB": "false", "START_CHP": "true",
        "ADDITIONAL_ARGS": "--log-level=debug", "SSH_PERMIT_TARGET_HOST": "ws-*", "SSH_PERMIT_TARGET_PORT": "8080",
        "DYNAMIC_WHITELIST_ENABLED": "true", "IS_CLEANUP_SERVICE_ENABLED": "false", "DATA_VOLUME_CONTAINER": "/data",
        "HUB_VERSION": "1.0.0", "SSHD_TARGET": "hub:22", "MANUAL_AUTH_FILE": "true",
    }  # fmt: skip
    remarks = answer(changed).remarks
    assert [remark.partition(": ")[0] for remark in remarks] == [
        f"{name}={changed[name]}" for name in OLD if name in changed
    ]


@pytest.mark.parametrize(
    ("variable", "value", "successor"),
    [
        ("ADDITIONAL_ARGS", "--x", "jupyterhub_user_config.py"),
        ("START_JHUB", "false", "compose.yaml"),
        ("START_SSH", "false", "without a key"),
        ("IS_CLEANUP_SERVICE_ENABLED", "false", "CLEANUP_INTERVAL_SECONDS=-1"),
        ("DATA_VOLUME_CONTAINER", "/old", "MLHUB_STANDALONE_DATA_DIR"),
        ("SSH_PERMIT_TARGET_HOST", "ws-*", "/hub/ssh-keys"),
    ],
)
def test_the_answer_names_what_is_there_instead(variable: str, value: str, successor: str) -> None:
    (remark,) = answer({variable: value}).remarks
    assert successor in remark


@pytest.mark.parametrize(("mode", "backend"), [("local", None), ("docker", "docker")])
def test_the_mode_chooses_the_backend(mode: str, backend: str | None) -> None:
    assert answer({"EXECUTION_MODE": mode}).backend == backend


@pytest.mark.parametrize(("variable", "value"), [("EXECUTION_MODE", "k8s"), ("EXECUTION_MODE", "swarm")])
def test_what_would_be_dangerous_to_ignore_ends_the_start(variable: str, value: str) -> None:
    with pytest.raises(LauncherError, match=f"{variable}={value}: "):
        answer({variable: value, "START_SSH": "false"})


def test_https_needs_no_word() -> None:
    assert answer({"SSL_ENABLED": "true"}).remarks == []
