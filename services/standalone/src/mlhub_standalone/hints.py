"""What a person is told once everything runs."""

from mlhub_standalone import https
from mlhub_standalone.instance import Instance

FIRST_ADMIN = "first-admin-link.txt"
"""Where the hub leaves the one-time sign-up link of the first admin, in its data directory."""


def hints(instance: Instance) -> str:
    """Where to go first, and what to know."""
    paragraphs = [_come_in(instance), _certificate(instance), _ssh(instance), _isolation(instance), _end(instance)]
    if instance.in_container:
        paragraphs.append(_published(instance))
    lines = [line for paragraph in filter(None, paragraphs) for line in [*paragraph, ""]]
    return "\n".join(f"  {line}" if line else "" for line in lines).rstrip()


def first_admin_link(instance: Instance) -> str | None:
    """The link by which the first admin signs up; None once it is used, or where a password was set."""
    try:
        return (instance.data.of("hub") / FIRST_ADMIN).read_text().strip() or None
    except OSError:
        return None


def _come_in(instance: Instance) -> list[str]:
    link = first_admin_link(instance)
    if link is None:
        return [f"Open {instance.public_url}"]
    return [
        "Sign up as the first admin, with this link, which works once:",
        f"  {link}",
        f"Everybody else signs up at {instance.public_url}/hub/signup and gets in when an admin approves.",
    ]


def _certificate(instance: Instance) -> list[str]:
    found = https.read(instance.data.certificate) if instance.tls else None
    if found is None or not found.is_self_signed:
        return []
    return [
        "The certificate is of its own making: browsers warn of it, and show this fingerprint (SHA-256):",
        f"  {found.fingerprint[:47]}",
        f"  {found.fingerprint[48:]}",
        f"Programs trust it by its file: curl --cacert {instance.data.certificate} {instance.public_url}",
    ]


def _published(instance: Instance) -> list[str]:
    return [
        f"Port {instance.port} is the container's own, for SSH too. If it is published elsewhere, tell the hub what",
        "people type: MLHUB_HUB_PUBLIC_URL and, where SSH comes in by another one, MLHUB_HUB_SSH_PORT.",
    ]


def _ssh(instance: Instance) -> list[str]:
    host, port = instance.shown_ssh
    return [
        f"SSH: add your public key at {instance.public_url}/hub/ssh-keys (ssh-keygen makes one), then",
        f"  ssh -p {port} NAME@{host}          (NAME--WORKSPACE for a named one; a stopped one is started)",
    ]


def _isolation(instance: Instance) -> list[str]:
    reach = (
        f"It listens on {instance.host}, where others can reach it, over {'HTTPS' if instance.tls else 'plain HTTP'}."
        if instance.is_open
        else "It listens on this machine alone."
    )
    if instance.runs_containers:
        return [f"Each workspace is a container, in a network of its user's alone. {reach}"]
    return [
        "Workspaces are processes of your own account: nothing keeps users apart from each other or from your files.",
        f"Let in only people you would lend this account to. {reach}",
    ]


def _end(instance: Instance) -> list[str]:
    if instance.in_container and instance.runs_containers:
        return [
            "`docker stop` leaves the workspaces running, and the next container with these data finds them again;",
            "`docker exec CONTAINER mlhub down` stops them too.",
        ]
    if instance.keep_workspaces:
        return ["Ctrl-C ends ML Hub and leaves the workspaces running; the next `mlhub up` finds them again."]
    return ["Ctrl-C ends ML Hub and stops the workspaces; their files are kept."]
