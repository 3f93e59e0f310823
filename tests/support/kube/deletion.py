"""Deletion in its two stages: marked, and gone once nothing holds it; the collector of what lost its owners."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.kube.defaults import PVC_PROTECTION
from tests.support.kube.errors import conflict
from tests.support.kube.resources import Obj
from tests.support.kube.store import Change, Store, Stored

FOREGROUND = "foregroundDeletion"
_FINISHED = {"Succeeded", "Failed"}


@dataclass(frozen=True)
class DeleteOptions:
    """What a request to delete says."""

    grace: int | None = None
    """Seconds. None: the pod's own."""
    uid: str | None = None
    revision: str | None = None
    propagation: str = "Background"

    @classmethod
    def from_request(cls, params: dict[str, str], body: dict[str, Any]) -> "DeleteOptions":
        """From the query and the body, whichever says it."""
        before = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds", params.get("gracePeriodSeconds"))
        propagation = body.get("propagationPolicy") or params.get("propagationPolicy") or "Background"
        return cls(None if grace is None else int(grace), before.get("uid"), before.get("resourceVersion"), propagation)


class Deletion:
    """Deletes objects by the rules."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, stored: Stored, options: DeleteOptions) -> None:
        """Refuse to delete another object than the one that was meant."""
        if options.uid is not None and options.uid != stored.uid:
            why = f"the UID in the precondition ({options.uid}) does not match the UID in record ({stored.uid})."
            why += " The object might have been deleted and then recreated"
            raise conflict(stored.resource, stored.name, why)
        if options.revision is not None and options.revision != str(stored.revision):
            why = f"the ResourceVersion in the precondition ({options.revision}) does not match the ResourceVersion"
            why += f" in record ({stored.revision}). The object might have been modified"
            raise conflict(stored.resource, stored.name, why)

    def delete(self, stored: Stored, options: DeleteOptions) -> Stored:
        """Mark it, or remove it where nothing is to be waited for."""
        self.check(stored, options)
        if options.propagation == "Orphan":
            self._orphan(stored)
        grace = self._grace(stored, options)
        metadata = stored.obj["metadata"]
        if not stored.is_going:
            finalizers = list(metadata.get("finalizers") or [])
            if options.propagation == "Foreground":
                finalizers.append(FOREGROUND)
            metadata = self._marked(metadata, grace)
            if finalizers:
                metadata["finalizers"] = finalizers
        elif grace < metadata.get("deletionGracePeriodSeconds", 0):
            metadata = self._marked(metadata, grace)
        if grace == 0 and not metadata.get("finalizers"):
            return self._store.remove(stored)
        return self._store.replace(stored, {**stored.obj, "metadata": metadata})

    def finish(self, stored: Stored) -> None:
        """Its programs have ended: nothing but finalizers holds it now."""
        metadata = stored.obj["metadata"]
        if not metadata.get("finalizers"):
            self._store.remove(stored)
            return
        self._store.replace(stored, {**stored.obj, "metadata": {**metadata, "deletionGracePeriodSeconds": 0}})

    def settle(self, stored: Stored) -> Stored:
        """Remove one whose last finalizer has just been taken away."""
        metadata = stored.obj["metadata"]
        held = metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds", 0)
        if stored.is_going and not held and self._store.by_uid.get(stored.uid) is stored:
            return self._store.remove(stored)
        return stored

    def drop_finalizer(self, stored: Stored, finalizer: str) -> None:
        """Take one away."""
        metadata = stored.obj["metadata"]
        left = [one for one in metadata.get("finalizers") or [] if one != finalizer]
        metadata = {**metadata, "finalizers": left}
        if not left:
            del metadata["finalizers"]
        self.settle(self._store.replace(stored, {**stored.obj, "metadata": metadata}))

    @staticmethod
    def _grace(stored: Stored, options: DeleteOptions) -> int:
        if stored.resource.plural != "pods":
            return 0
        spec, status = stored.obj["spec"], stored.obj["status"]
        if "nodeName" not in spec or status.get("phase") in _FINISHED:
            return 0
        return int(spec["terminationGracePeriodSeconds"] if options.grace is None else options.grace)

    @staticmethod
    def _marked(metadata: Obj, grace: int) -> Obj:
        at = (datetime.now(UTC) + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {**metadata, "deletionTimestamp": at, "deletionGracePeriodSeconds": grace}

    def _orphan(self, owner: Stored) -> None:
        for child in [one for one in self._store.by_uid.values() if owner.uid in owners(one.obj)]:
            left = [one for one in child.obj["metadata"]["ownerReferences"] if one["uid"] != owner.uid]
            metadata = {**child.obj["metadata"], "ownerReferences": left}
            if not left:
                del metadata["ownerReferences"]
            self._store.replace(child, {**child.obj, "metadata": metadata})


def owners(obj: Obj) -> dict[str, Obj]:
    """References by uid."""
    return {reference["uid"]: reference for reference in obj["metadata"].get("ownerReferences") or ()}


class Collector:
    """Deletes what has lost its owners, and lets go of claims that no pod uses."""

    def __init__(self, store: Store, deletion: Deletion, delay: float = 0.06) -> None:
        self._store, self._deletion = store, deletion
        self.delay = delay
        """Seconds until it acts."""
        self.is_on = True
        self._children: dict[str, set[str]] = defaultdict(set)
        """Uids of dependents by the uid of their owner."""
        self._users: dict[tuple[str, str], set[str]] = defaultdict(set)
        """Uids of scheduled pods by namespace and claim."""
        store.listen(self._changed)

    def _changed(self, change: Change) -> None:
        stored = change.now
        if stored.resource.plural == "events":
            return
        had, has = owners(change.before.obj) if change.before else {}, owners(stored.obj)
        is_gone = change.type == "DELETED"
        for uid in has if is_gone else had.keys() - has.keys():
            self._children[uid].discard(stored.uid)
        if is_gone:
            for uid in self._children.pop(stored.uid, ()):
                self._soon(uid)
            for uid in has:
                self._soon(uid)
        elif has.keys() - had.keys():
            for uid in has:
                self._children[uid].add(stored.uid)
            self._soon(stored.uid)
        if not is_gone and stored.is_going and FOREGROUND in (stored.obj["metadata"].get("finalizers") or ()):
            self._soon(stored.uid)
        self._watch_claims(change, is_gone=is_gone)

    def _watch_claims(self, change: Change, *, is_gone: bool) -> None:
        stored = change.now
        if stored.resource.plural == "pods" and "nodeName" in stored.obj["spec"]:
            for claim in claims(stored.obj):
                users = self._users[stored.namespace, claim]
                if not is_gone:
                    users.add(stored.uid)
                    continue
                users.discard(stored.uid)
                if found := self._store.get("persistentvolumeclaims", stored.namespace, claim):
                    self._soon(found.uid)
        elif stored.resource.plural == "persistentvolumeclaims" and stored.is_going and not is_gone:
            self._soon(stored.uid)

    def _soon(self, uid: str) -> None:
        asyncio.get_running_loop().call_later(self.delay, self._examine, uid)

    def _examine(self, uid: str) -> None:
        stored = self._store.by_uid.get(uid)
        if stored is None or not self.is_on:
            return
        if stored.is_going:
            self._release(stored)
        else:
            self._collect(stored)

    def _release(self, stored: Stored) -> None:
        finalizers = stored.obj["metadata"].get("finalizers") or ()
        if PVC_PROTECTION in finalizers and not self._users.get(stored.key):
            self._deletion.drop_finalizer(stored, PVC_PROTECTION)
        if FOREGROUND not in finalizers or (latest := self._store.by_uid.get(stored.uid)) is None:
            return
        children = [self._store.by_uid[uid] for uid in self._children[stored.uid] if uid in self._store.by_uid]
        blocking = [one for one in children if owners(one.obj)[stored.uid].get("blockOwnerDeletion")]
        if not blocking:
            self._deletion.drop_finalizer(latest, FOREGROUND)
        for child in blocking:
            if not child.is_going:
                self._collect(child)

    def _collect(self, stored: Stored) -> None:
        references = owners(stored.obj)
        if references and not any(self._is_solid(stored, reference) for reference in references.values()):
            self._deletion.delete(stored, DeleteOptions())

    def _is_solid(self, child: Stored, reference: Obj) -> bool:
        """Whether this owner still keeps it."""
        owner = self._store.by_uid.get(reference["uid"])
        if owner is None or owner.name != reference["name"] or owner.resource.kind != reference["kind"]:
            return False
        if owner.namespace not in {"", child.namespace}:
            return False
        waits = owner.is_going and FOREGROUND in (owner.obj["metadata"].get("finalizers") or ())
        return not (waits and reference.get("blockOwnerDeletion"))


def claims(pod: Obj) -> list[str]:
    """Names of the claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or ()
    return [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]
