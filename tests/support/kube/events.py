"""Event objects, as the scheduler, the kubelet and the controllers write them."""

import uuid
from datetime import UTC, datetime

from tests.support.kube.resources import BY_PLURAL, Obj
from tests.support.kube.store import Store, Stored, now

_EVENTS = BY_PLURAL["events"]


class Recorder:
    """Writes events; what one source repeats about one object is counted up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str], str] = {}
        """Names by uid of the object, reason and message."""

    def record(
        self,
        about: Stored,
        reason: str,
        message: str,
        *,
        source: str = "kubelet",
        warning: bool = False,
        field: str = "",
    ) -> None:
        """Tell it."""
        key = (about.uid, reason, message)
        known = self._store.get("events", about.namespace, self._known.get(key, ""))
        if known is not None and source != "default-scheduler":
            count = known.obj["count"] + 1
            self._store.replace(known, {**known.obj, "count": count, "lastTimestamp": now()})
            return
        name = f"{about.name}.{uuid.uuid4().hex[:16]}"
        self._known[key] = name
        self._store.add(_EVENTS, self._event(about, name, reason, message, source, warning, field))

    @staticmethod
    def _event(about: Stored, name: str, reason: str, message: str, source: str, warning: bool, field: str) -> Obj:
        involved = {
            "kind": about.resource.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
            "apiVersion": about.resource.api_version,
            "resourceVersion": str(about.revision),
        }
        if field:
            involved["fieldPath"] = field
        event: Obj = {
            "metadata": {"name": name, "namespace": about.namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "reportingComponent": source,
            "reportingInstance": "",
        }
        if source == "default-scheduler":
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            return event | {"eventTime": at, "source": {}, "firstTimestamp": None, "lastTimestamp": None}
        times = {"firstTimestamp": now(), "lastTimestamp": now(), "count": 1, "eventTime": None}
        return event | times | {"source": {"component": source}}
