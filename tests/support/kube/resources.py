"""The kinds of objects that the server knows."""

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
"""What an API object is made of; never changed once it is stored."""


@dataclass(frozen=True)
class Resource:
    """One kind of objects."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    is_namespaced: bool = True
    returns_deleted: bool = False
    """A delete is answered with the object, not with a Status."""

    @property
    def api_version(self) -> str:
        """As it stands in objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As messages call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_ALL = (
    Resource("pods", "Pod", returns_deleted=True),
    Resource("services", "Service", returns_deleted=True),
    Resource("persistentvolumeclaims", "PersistentVolumeClaim", returns_deleted=True),
    Resource("events", "Event"),
    Resource("configmaps", "ConfigMap"),
    Resource("secrets", "Secret"),
    Resource("serviceaccounts", "ServiceAccount", returns_deleted=True),
    Resource("resourcequotas", "ResourceQuota", returns_deleted=True),
    Resource("limitranges", "LimitRange"),
    Resource("namespaces", "Namespace", is_namespaced=False, returns_deleted=True),
    Resource("nodes", "Node", is_namespaced=False),
    Resource("leases", "Lease", "coordination.k8s.io"),
    Resource("networkpolicies", "NetworkPolicy", "networking.k8s.io"),
    Resource("priorityclasses", "PriorityClass", "scheduling.k8s.io", is_namespaced=False),
)

BY_PLURAL = {resource.plural: resource for resource in _ALL}
