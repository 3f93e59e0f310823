"""What a profile says of its workspaces for Kubernetes; other backends pass it over."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    StringConstraints,
    model_validator,
)

from mlhub_shared.contracts.sizes import Size

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, StringConstraints(pattern=rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_WORD})?$")]

GPU_RESOURCE = "nvidia.com/gpu"
CONTAINER = "workspace"
"""The name of a workspace's own container in its pod."""

_OURS = ("mlhub.", "app.kubernetes.io/managed-by", "app.kubernetes.io/component")
"""Beginnings of labels and annotations by which a workspace is known."""
_AFFINITIES = ("nodeAffinity", "podAffinity", "podAntiAffinity")


def _not_ours(marks: dict[str, str]) -> dict[str, str]:
    if ours := sorted(key for key in marks if key.startswith(_OURS)):
        raise ValueError(f"{ours[0]} is set by the worker; choose another name")
    return marks


def _needed(size: int | None) -> int | None:
    if size is None:
        raise ValueError("must be a size such as 10G")
    return size


def _affinities(given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if unknown := sorted(given.keys() - set(_AFFINITIES)):
        raise ValueError(f"there is no {unknown[0][:40]}; there are {', '.join(_AFFINITIES)}")
    return given


def _containers(given: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    names = [container.get("name") for container in given]
    for container, name in zip(given, names, strict=True):
        if not all(isinstance(container.get(key), str) and container[key] for key in ("name", "image")):
            raise ValueError("each must have a name and an image")
        if name == CONTAINER or names.count(name) > 1:
            raise ValueError(f"there is another container called {name}")
    return given


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Part):
    """Of a taint, as Kubernetes spells it."""

    key: LabelKey | None = None
    """None: every key; `operator` is `Exists` then."""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """None: every effect."""
    toleration_seconds: NonNegativeInt | None = None
    """Of NoExecute. None: for ever."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("without a key, the operator must be Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("toleration_seconds needs the effect NoExecute")
        return self


class ClusterProfile(_Part):
    """Of the pods and volumes of a profile."""

    cpu_request: PositiveFloat | None = None
    """Cores that are kept free for it; never more than its limit. None: as many as its limit."""
    mem_request: Size = None
    """Likewise, such as `512M`."""
    gpu_resource: LabelKey = GPU_RESOURCE
    """What the cluster calls the kind of GPU that this profile gives."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Beside the profile's `node_labels`, which mean the same."""
    tolerations: tuple[Toleration, ...] = ()
    affinity: Annotated[dict[str, JsonValue], AfterValidator(_affinities)] = Field(default_factory=dict)
    """As it stands in a pod's specification."""
    priority_class: DnsName | None = None

    image_pull_secrets: tuple[DnsName, ...] = ()
    """Names of secrets in the workspaces' namespace."""
    service_account: DnsName | None = None
    """Its token is mounted then. None: the default one, without a token."""

    run_as_non_root: bool = True
    """Refuse an image whose user is root. `restricted` namespaces demand it."""
    fs_group: NonNegativeInt | None = 100
    """Group that owns the volume. None: as the volume is."""
    read_only_root: bool = False
    """Nothing but the volume and /tmp can be written."""

    volume_size: Annotated[Size, AfterValidator(_needed)] = 10 * 1024**3
    """Of its volume, such as `10G`."""
    storage_class: DnsName | None = None
    """None: the cluster's default."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"

    labels: Annotated[dict[LabelKey, LabelValue], AfterValidator(_not_ours)] = Field(default_factory=dict)
    """Added to its pods; none of `mlhub.`."""
    annotations: Annotated[dict[LabelKey, str], AfterValidator(_not_ours)] = Field(default_factory=dict)
    """Likewise."""
    init_containers: Annotated[tuple[dict[str, Any], ...], AfterValidator(_containers)] = ()
    """As they stand in a pod's specification; `volumeMounts` may name `home`, the workspace's volume. What their
    `securityContext` does not name is as for the workspace: to change owners as root, add the capability `CHOWN`, too.
    """
