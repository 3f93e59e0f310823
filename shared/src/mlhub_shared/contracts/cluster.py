"""What a profile says of its workspaces for Kubernetes; other backends pass it over."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, PositiveFloat, StringConstraints

from mlhub_shared.contracts.sizes import Size

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LabelKey = Annotated[str, StringConstraints(pattern=rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_WORD}$")]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_WORD})?$")]

GPU_RESOURCE = "nvidia.com/gpu"


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
    affinity: dict[str, JsonValue] = Field(default_factory=dict)
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

    volume_size: Size = 10 * 1024**3
    """Of its volume, such as `10G`."""
    storage_class: DnsName | None = None
    """None: the cluster's default."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"

    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Added to its pods; none of `mlhub.`."""
    annotations: dict[LabelKey, str] = Field(default_factory=dict)
    """Likewise."""
    init_containers: tuple[dict[str, Any], ...] = ()
    """As they stand in a pod's specification; `volumeMounts` may name `home`, the workspace's volume."""
