"""Quotas, LimitRanges and PodSecurity: what a namespace refuses though the object itself is fine."""

from collections import Counter
from collections.abc import Iterator

from tests.support.kube.errors import forbidden
from tests.support.kube.resources import Obj, Resource
from tests.support.kube.scheduling import quantity
from tests.support.kube.store import Store

_ENFORCE = "pod-security.kubernetes.io/enforce"
_COMPUTE = {"requests.cpu", "requests.memory", "limits.cpu", "limits.memory"}
_ALIASES = {"cpu": "requests.cpu", "memory": "requests.memory"}


class Admission:
    """Asked about every object that is to be created, in two steps as in a real server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fill(self, resource: Resource, obj: Obj) -> Obj:
        """Before validation: what a LimitRange adds, and that the service account exists."""
        if resource.plural != "pods":
            return obj
        namespace, spec = obj["metadata"]["namespace"], obj.get("spec") or {}
        account = spec.get("serviceAccountName") or "default"
        if self._store.get("serviceaccounts", namespace, account) is None:
            why = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden(resource, obj["metadata"].get("name", ""), why)
        for limits in self._container_limits(namespace):
            spec = {**spec, "containers": [_filled(one, limits) for one in spec.get("containers") or ()]}
        return {**obj, "spec": spec}

    def check(self, resource: Resource, obj: Obj) -> None:
        """After validation, before the name is looked at."""
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace", "")
        if resource.plural == "pods":
            for why in (*self._too_much(namespace, obj), *self._insecure(namespace, obj)):
                raise forbidden(resource, name, why)
        if resource.is_namespaced and (why := self._over_quota(resource, namespace, obj)):
            raise forbidden(resource, name, why)

    def _container_limits(self, namespace: str) -> Iterator[Obj]:
        for stored in self._store.all("limitranges", namespace):
            yield from (one for one in stored.obj["spec"]["limits"] if one["type"] == "Container")

    def _too_much(self, namespace: str, pod: Obj) -> Iterator[str]:
        for limits in self._container_limits(namespace):
            for container in pod["spec"]["containers"]:
                had = container["resources"].get("limits", {})
                for name, most in (limits.get("max") or {}).items():
                    if name not in had:
                        yield f"maximum {name} usage per Container is {most}.  No limit is specified"
                    elif quantity(had[name]) > quantity(most):
                        yield f"maximum {name} usage per Container is {most}, but limit is {had[name]}"

    def _insecure(self, namespace: str, pod: Obj) -> Iterator[str]:
        labels = (self._store.get("namespaces", "", namespace) or _NOWHERE).obj["metadata"].get("labels") or {}
        level = labels.get(_ENFORCE, "privileged")
        if level == "privileged":
            return
        faults = list(_violations(pod["spec"], restricted=level == "restricted"))
        if faults:
            yield f'violates PodSecurity "{level}:latest": {", ".join(faults)}'

    def _over_quota(self, resource: Resource, namespace: str, obj: Obj) -> str:
        for quota in self._store.all("resourcequotas", namespace):
            hard = {_ALIASES.get(name, name): value for name, value in quota.obj["spec"]["hard"].items()}
            if missing := _unsaid(resource, obj, hard):
                return f"failed quota: {quota.name}: must specify {missing}"
            wanted = Counter({name: value for name, value in _usage(resource, obj).items() if name in hard})
            if not wanted:
                continue
            used = self._used(resource, namespace)
            over = [name for name in wanted if used[name] + wanted[name] > quantity(hard[name])]
            if over:
                asked, had = (",".join(f"{name}={_told(what[name])}" for name in over) for what in (wanted, used))
                limited = ",".join(f"{name}={hard[name]}" for name in over)
                return f"exceeded quota: {quota.name}, requested: {asked}, used: {had}, limited: {limited}"
        return ""

    def _used(self, resource: Resource, namespace: str) -> "Counter[str]":
        total: Counter[str] = Counter()
        for stored in self._store.all(resource.plural, namespace):
            if stored.obj.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
                total.update(_usage(resource, stored.obj))
        return total


class _Nowhere:
    obj: Obj = {"metadata": {}}  # noqa: RUF012


_NOWHERE = _Nowhere()


def _filled(container: Obj, limits: Obj) -> Obj:
    resources = container.get("resources") or {}
    had = {**(limits.get("default") or {}), **(resources.get("limits") or {})}
    asked = {**(limits.get("defaultRequest") or {}), **(resources.get("requests") or {})}
    filled = {key: value for key, value in (("limits", had), ("requests", asked)) if value}
    return {**container, "resources": {**resources, **filled}}


def _usage(resource: Resource, obj: Obj) -> "Counter[str]":
    usage: Counter[str] = Counter({f"count/{resource.qualified}": 1, resource.plural: 1})
    if resource.plural == "persistentvolumeclaims":
        usage["requests.storage"] += quantity(obj["spec"]["resources"]["requests"]["storage"])  # type: ignore[assignment]
    if resource.plural == "pods":
        for container in obj["spec"]["containers"]:
            for kind in ("requests", "limits"):
                for name, value in (container["resources"].get(kind) or {}).items():
                    usage[f"{kind}.{name}"] += quantity(value)  # type: ignore[assignment]
    return usage


def _unsaid(resource: Resource, obj: Obj, hard: dict[str, str]) -> str:
    """What a quota of computing demands that a pod says, and it does not."""
    if resource.plural != "pods":
        return ""
    told = []
    for wanted in sorted(_COMPUTE & hard.keys()):
        kind, name = wanted.split(".")
        without = [one["name"] for one in obj["spec"]["containers"] if name not in (one["resources"].get(kind) or {})]
        if without:
            told.append(f"{wanted} for: {','.join(without)}")
    return "; ".join(told)


def _told(amount: float) -> str:
    return f"{amount:g}" if amount < 1e6 else str(int(amount))


def _violations(spec: Obj, *, restricted: bool) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"host namespaces ({field}=true)"
    for volume in spec.get("volumes") or ():
        if "hostPath" in volume:
            yield f'hostPath volumes (volume "{volume["name"]}")'
    of_pod = spec.get("securityContext") or {}
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        name, own = container["name"], container.get("securityContext") or {}
        if own.get("privileged"):
            yield f'privileged (container "{name}" must not set securityContext.privileged=true)'
        if restricted:
            yield from _restricted(name, own, of_pod)


def _restricted(name: str, own: Obj, of_pod: Obj) -> Iterator[str]:
    both = {**of_pod, **own}
    if own.get("allowPrivilegeEscalation") is not False:
        text = f'container "{name}" must set securityContext.allowPrivilegeEscalation=false'
        yield f"allowPrivilegeEscalation != false ({text})"
    if "ALL" not in ((own.get("capabilities") or {}).get("drop") or ()):
        yield f'unrestricted capabilities (container "{name}" must set securityContext.capabilities.drop=["ALL"])'
    if both.get("runAsNonRoot") is not True:
        yield f'runAsNonRoot != true (pod or container "{name}" must set securityContext.runAsNonRoot=true)'
    if (both.get("seccompProfile") or {}).get("type") not in {"RuntimeDefault", "Localhost"}:
        text = (
            f'pod or container "{name}" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        )
        yield f"seccompProfile ({text})"
