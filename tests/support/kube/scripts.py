"""What a test writes down about the kubelet: how long things take, and what goes wrong with which pod."""

from dataclasses import dataclass

NOT_FOUND = "not_found"
UNAUTHORIZED = "unauthorized"
NO_ANSWER = "no_answer"
"""Ways in which a registry refuses an image."""


@dataclass
class Timing:
    """Seconds. Real clusters are about ten times slower."""

    schedule: float = 0.01
    bind: float = 0.01
    """From a claim to its volume."""
    pull: float = 0.03
    """Of an image that the node does not have; it pulls one at a time."""
    pull_backoff: float = 0.3
    create: float = 0.01
    start: float = 0.01
    ready: float = 0.0
    """From a container's start to the pod's condition Ready."""
    notice: float = 0.02
    """From a container's death to its state."""
    phase_lag: float = 0.05
    """From a container's `terminated` to the pod's phase."""
    removal: float = 0.02
    """From the end of a deleted pod's containers to its end."""
    force_lag: float = 0.5
    """How long a container outlives a pod that was removed with a grace of 0."""
    crash_backoff: float = 0.3
    node_notice: float = 0.1
    """From a node's silence to its conditions."""


@dataclass
class Script:
    """What happens to one pod. Whatever holds it back ends with `Kubelet.release(name)`."""

    unschedulable: str = ""
    """The scheduler's message: no room until released."""
    mount_error: str = ""
    """The volume can't be mounted: repeated as FailedMount."""
    pull: float | None = None
    """Seconds. None: as Timing says, and nothing where the node has the image."""
    pull_error: str = ""
    """NOT_FOUND, UNAUTHORIZED, NO_ANSWER or a message of its own."""
    pull_fails: int | None = None
    """How often. None: until released."""
    pull_says_less: bool = False
    """Between two tries the cause is not told, as by older kubelets."""
    invalid_image: bool = False
    """InvalidImageName, for ever."""
    config_error: str = ""
    """CreateContainerConfigError, with this message."""
    run_error: str = ""
    """The container can't be started; with `restartPolicy: Never` that is its end."""
    ready_after: float | None = None
    """Seconds until the condition Ready."""
    exit_code: int | None = None
    """The container ends by itself with this code, instead of running the program."""
    exit_after: float = 0.0
    """Seconds until that."""
    oom_after: float | None = None
    """Seconds until it is killed for its memory."""
    last_words: str = ""
    """Written to its log before it ends so, or in place of a program's."""
    termination_message: str = ""
    """What it left in /dev/termination-log."""
    stop_takes: float = 0.0
    """Seconds that it needs to obey TERM, where it is no real process; more than the grace: it never does."""


def pull_message(kind: str, image: str) -> str:
    """What containerd says."""
    resolve = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}"'
    head = "rpc error: code = NotFound desc = " if kind == NOT_FOUND else "rpc error: code = Unknown desc = "
    host = image.split("/")[0] if "." in image.split("/")[0] or ":" in image.split("/")[0] else "registry-1.docker.io"
    said = {
        NOT_FOUND: f"{resolve}: {image}: not found",
        UNAUTHORIZED: f"{resolve}: pull access denied, repository does not exist or may require authorization: "
        "authorization failed: 401 Unauthorized",
        NO_ANSWER: f'{resolve}: failed to do request: Head "https://{host}/v2/": dial tcp: i/o timeout',
    }
    return head + said[kind] if kind in said else kind
