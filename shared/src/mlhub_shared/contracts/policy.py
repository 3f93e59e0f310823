"""What an administrator allows: profiles to choose from, images, and the most that anybody may have."""

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    model_validator,
)

from mlhub_shared.contracts.cluster import ClusterProfile
from mlhub_shared.contracts.environment import check_environment
from mlhub_shared.contracts.identity import Token
from mlhub_shared.contracts.sizes import Size, size_in_words
from mlhub_shared.contracts.workspace import COUNTED, WorkspaceSpec

ImageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]
Absolute = Annotated[str, StringConstraints(pattern=r"^/[^,:\x00]*$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$")]

CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
"""What engines give to every container, but for NET_RAW: with any other one a workspace could leave its place."""


def _capability(given: str) -> str:
    """Its plain name: engines take `cap_kill` for KILL too."""
    name = given.strip().upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise ValueError(f"no workspace may have {name[:40]}; there are {', '.join(CAPABILITIES)}")
    return name


Capability = Annotated[str, AfterValidator(_capability)]

LEAST_CPU, LEAST_MEM = 0.01, 16 * 1024**2
"""Cores and bytes that an engine can grant at all."""

MOST_CPU = 1024**2
"""Cores; more than any machine has, and few enough to be counted in billionths."""

HOW_MANY_GPUS = "say how many, such as 2: which ones is the cluster's to choose"
WHICH_GPUS = 'say which, such as "0,1", or "all": GPUs go by their ids here'

_COUNTED_GPUS = re.compile(rf"{COUNTED}[1-9][0-9]{{0,8}}")


class OptionsError(ValueError):
    """More than is allowed, as a sentence; `field` is the option's key."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class SharedVolume(BaseModel):
    """Data that every workspace of a profile sees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    """A path of the node, the name of a volume, or `nfs://server/path`."""
    target: Absolute
    """Path in the workspace."""
    read_only: bool = True
    """Of a path of the node, what is mounted somewhere below it is not seen then."""


class Profile(BaseModel):
    """One kind of workspace, as the administrator describes it. An image's contract with the hub stands here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Token
    display_name: Annotated[str, StringConstraints(max_length=64)] = ""
    """What people read. Empty: the name."""
    description: Annotated[str, StringConstraints(max_length=512)] = ""
    image: ImageName
    port: Annotated[int, Field(gt=0, lt=65536)] = 8888
    """Where the image's Jupyter server listens."""
    home: Absolute = "/home/jovyan"
    """What is kept: the workspace's volume is mounted here."""
    user: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    """User, or user:group, names or numbers. None: the image's."""
    command: tuple[str, ...] | None = None
    """None: the image's own."""
    env: Annotated[dict[str, str], AfterValidator(check_environment)] = Field(default_factory=dict)
    default_cpu: PositiveFloat | None = None
    """Cores. None: the policy's."""
    max_cpu: PositiveFloat | None = None
    """Cores. None: the policy's."""
    default_mem: Size = None
    max_mem: Size = None
    default_shm: Size = None
    """Of /dev/shm. None: the engine's default of 64 MiB."""
    max_shm: Size = None
    max_gpus: NonNegativeInt | None = None
    """None: the policy's, and where GPUs are counted and it has none either, no GPU."""
    gpus_shared: bool = False
    """Workspaces of this profile may be given a GPU that another workspace has."""
    pids_limit: PositiveInt = 4096
    """Processes and threads together."""
    capabilities: tuple[Capability, ...] = ()
    """What the image needs of what is taken from every workspace, such as SETUID for sudo."""
    privilege_escalation: bool = False
    """Whether programs may gain rights by setuid, as sudo does."""
    volumes: tuple[SharedVolume, ...] = ()
    node_labels: dict[Label, Label] = Field(default_factory=dict)
    """Only nodes with all of these labels run it."""
    own_tools: bool | None = None
    """The image serves what lies below `tools/` by itself, as ml-workspace does. None: as the image's name says."""
    own_ssh: bool | None = None
    """The image's port takes SSH as well, and shows its user's public key at `/publickey`. None: likewise."""
    start_timeout: PositiveFloat | None = None
    """Seconds from its start to its first answer. None: the worker's."""
    kubernetes: ClusterProfile = Field(default_factory=ClusterProfile)
    """Read where workspaces are pods."""

    @property
    def title(self) -> str:
        """What people read."""
        return self.display_name or self.name

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("cpu", "mem", "shm"):
            default, most = getattr(self, f"default_{what}"), getattr(self, f"max_{what}")
            if default is not None and most is not None and default > most:
                raise ValueError(f"default_{what} is more than max_{what}")
        return self


def _by_name(profiles: object) -> object:
    names = [getattr(profile, "name", None) for profile in profiles] if isinstance(profiles, tuple) else []
    if len(names) != len(set(names)):
        raise ValueError("two profiles have the same name")
    return profiles


class Policy(BaseModel):
    """The most that anybody may ask for, and what those get who ask for nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_cpu: PositiveFloat | None = None
    """Cores. None: no maximum."""
    max_mem: PositiveInt | None = None
    """Bytes. None: no maximum."""
    max_shm: PositiveInt | None = None
    """Bytes. None: no maximum."""
    max_gpus: NonNegativeInt | None = None
    """None: no maximum; where GPUs are counted, none but those that a profile says."""
    max_days_to_live: PositiveFloat | None = None
    """None: no maximum, and workspaces may live for ever."""
    default_cpu: PositiveFloat | None = None
    default_mem: PositiveInt | None = None
    default_days_to_live: float = 0
    """0: never expires."""
    user_max_workspaces: PositiveInt | None = None
    """Wanted up at the same time by one user. None: no maximum."""
    user_max_cpu: PositiveFloat | None = None
    """Cores of all of one user's workspaces that are wanted up. None: no maximum."""
    user_max_mem: PositiveInt | None = None
    """Bytes, likewise."""
    user_max_gpus: NonNegativeInt | None = None
    """Likewise."""
    profiles: Annotated[tuple[Profile, ...], BeforeValidator(_by_name)] = ()
    """The first one is the default. Empty where the backend runs no images."""
    images: tuple[str, ...] = ()
    """Patterns of images that people may name themselves; empty: none but the profiles'.

    `*` stands for any characters but a slash, so that no pattern reaches into another registry; alone, for any image.
    """
    keep_volumes_days: NonNegativeFloat = 0
    """How long the volume of a deleted workspace is kept. 0: it goes at once."""
    images_allowed: bool = False
    """The backend runs images; elsewhere asking for one is an error."""
    gpus_allowed: bool = False
    """The backend has GPUs to give."""
    gpus_counted: bool = False
    """GPUs are asked for by their number, and the backend chooses which; elsewhere by their ids."""

    @property
    def default_profile(self) -> Profile | None:
        """Of those who choose none; None where there are no profiles."""
        return self.profiles[0] if self.profiles else None

    def profile(self, name: str | None) -> Profile | None:
        """The profile of this name, the default one for None; OptionsError if there is none of this name."""
        if name is None:
            return self.default_profile
        for profile in self.profiles:
            if profile.name == name:
                return profile
        if not self.profiles:
            raise OptionsError("profile", "there are no profiles to choose from here")
        names = ", ".join(profile.name for profile in self.profiles)
        raise OptionsError("profile", f"there is no {name[:40]!r} here; choose one of {names}")

    def allows_image(self, image: str, profile: Profile | None) -> bool:
        """Whether people may run this image: a profile's own, or one that a pattern allows."""
        if profile is not None and image == profile.image:
            return True
        return any(_matches(name, pattern) for name in _names_of(image) for pattern in self.images)

    def most(self, what: str, profile: Profile | None) -> float | None:
        """The most of `cpu`, `mem`, `shm` or `gpus` that a workspace of this profile may have; None: no maximum."""
        most = _least(getattr(self, f"max_{what}"), getattr(profile, f"max_{what}", None))
        # Nobody knows how many there are where they are counted: a cluster may buy whatever it is asked for.
        return 0 if most is None and what == "gpus" and self.gpus_counted else most


def gpus_in_words(count: float) -> str:
    """`1 GPU`, `2 GPUs`."""
    return f"{count:g} {'GPU' if count == 1 else 'GPUs'}"


def check_spec(spec: WorkspaceSpec, policy: Policy) -> None:
    """What hub and worker both hold every workspace to; OptionsError if this policy does not allow it."""
    profile = policy.profile(spec.profile)
    if not policy.images_allowed:
        _check_without_images(spec)
    if spec.gpus is not None:
        _check_gpus(spec.gpus, policy)
    if spec.image is not None and not policy.allows_image(spec.image, profile):
        raise OptionsError("image", _image_refused(spec.image, policy))
    if spec.cpu_limit is not None and spec.cpu_limit < LEAST_CPU:
        raise OptionsError("cpu_limit", f"must be at least {LEAST_CPU:g} cores")
    if spec.mem_limit is not None and spec.mem_limit < LEAST_MEM:
        raise OptionsError("mem_limit", f"must be at least {size_in_words(LEAST_MEM)}")
    _at_most("cpu_limit", spec.cpu_limit, MOST_CPU, "{:g} cores".format)
    _at_most("cpu_limit", spec.cpu_limit, policy.most("cpu", profile), "{:g} cores".format)
    _at_most("mem_limit", spec.mem_limit, policy.most("mem", profile), size_in_words)
    _at_most("shm_size", spec.shm_size, policy.most("shm", profile), size_in_words)
    _at_most("gpus", spec.gpu_count, policy.most("gpus", profile), gpus_in_words)
    if policy.max_days_to_live is not None:
        most = policy.max_days_to_live
        if spec.lifetime is None:
            raise OptionsError("days_to_live", f"must be more than 0 and at most {most:g} days here")
        _at_most("days_to_live", spec.lifetime / timedelta(days=1), most, "{:g} days".format)


def check_totals(spec: WorkspaceSpec, others: Iterable[WorkspaceSpec], policy: Policy) -> None:
    """Whether one user may have this beside his other workspaces that are wanted up; OptionsError if not.

    Where a total is limited, nobody gets a workspace without a limit of its own.
    """
    all_of_them = [*others, spec]
    if policy.user_max_workspaces is not None and len(all_of_them) > policy.user_max_workspaces:
        raise OptionsError(
            "server_name", f"no more than {policy.user_max_workspaces} of your workspaces may run at a time"
        )
    for field, what, most, size in (
        ("cpu_limit", "cores", policy.user_max_cpu, 1),
        ("mem_limit", "GiB of memory", policy.user_max_mem, 1024**3),
        ("gpu_count", "GPUs", policy.user_max_gpus, 1),
    ):
        if most is None:
            continue
        option = "gpus" if field == "gpu_count" else field
        values = [getattr(other, field) for other in all_of_them]
        if values[-1] is None:
            raise OptionsError(option, f"must be set: all your workspaces together may have {most / size:g} {what}")
        rest = most - sum(value for value in values[:-1] if value is not None)
        if values[-1] > rest:
            left = max(rest, 0) / size
            message = f"your workspaces together may have {most / size:g} {what}, and {left:g} are left"
            raise OptionsError(option, message)


def _names_of(image: str) -> tuple[str, ...]:
    """What stands for this image: without a tag or digest it is the latest one."""
    return (image,) if {":", "@"} & set(image.rpartition("/")[2]) else (image, f"{image}:latest")


def _matches(image: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    parts, patterns = image.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _check_without_images(spec: WorkspaceSpec) -> None:
    for field, is_asked, why in (
        ("image", spec.image is not None, "this backend runs no images"),
        ("update", spec.update, "this backend runs no images that could be newer; leave it out, and just start it"),
        ("shm_size", spec.shm_size is not None, "this backend can't limit /dev/shm; leave it out"),
        ("is_mount_volume", not spec.is_mount_volume, "this backend keeps the files of every workspace; leave it out"),
    ):
        if is_asked:
            raise OptionsError(field, why)


def _check_gpus(gpus: str, policy: Policy) -> None:
    if not policy.gpus_allowed:
        raise OptionsError("gpus", "this backend has no GPUs to give")
    if policy.gpus_counted and not _COUNTED_GPUS.fullmatch(gpus):
        raise OptionsError("gpus", HOW_MANY_GPUS)
    if not policy.gpus_counted and gpus.startswith(COUNTED):
        raise OptionsError("gpus", WHICH_GPUS)


def _image_refused(image: str, policy: Policy) -> str:
    if not policy.images:
        return "choose one of the profiles; images of your own are not allowed here"
    return f"{image[:80]!r} is not allowed here; it must match one of {', '.join(policy.images)}"


def _at_most(field: str, value: float | None, most: float | None, in_words: Callable[[float], str]) -> None:
    if value is not None and most is not None and value > most:
        raise OptionsError(field, f"must be at most {in_words(most)}" if most else "there are none to be had here")


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
