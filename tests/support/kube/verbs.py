"""What the verbs do with objects; each is one step that nothing comes between."""

import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.kube.admission import Admission
from tests.support.kube.defaults import completed
from tests.support.kube.deletion import DeleteOptions, Deletion
from tests.support.kube.errors import ApiError, already_exists, bad_request, conflict, expired, invalid, not_found
from tests.support.kube.patching import Patch, patched
from tests.support.kube.resources import Obj, Resource
from tests.support.kube.selectors import selecting
from tests.support.kube.store import Store, Stored
from tests.support.kube.validation import decoded, validate, validate_change

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_OWN = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")
"""Parts of metadata that only the server writes."""


@dataclass(frozen=True)
class Place:
    """What a request is about."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Verbs:
    """Creates, reads, changes and deletes objects by the rules."""

    def __init__(self, store: Store, deletion: Deletion) -> None:
        self._store, self._deletion = store, deletion
        self._admission = Admission(store)
        self._applied: dict[tuple[str, str], Obj] = {}
        """What each field manager has applied last, by uid and its name."""

    def create(self, place: Place, body: Obj, params: Mapping[str, str]) -> bytes:
        """POST."""
        resource = place.resource
        obj = self._decoded(place, body, params)
        metadata = {key: value for key, value in obj.get("metadata", {}).items() if key not in _OWN}
        self._in_namespace(place, metadata)
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + "".join(random.choices(_LETTERS, k=5))
        obj = {**obj, "metadata": metadata}
        obj.pop("status", None)
        obj = self._admission.fill(resource, obj)
        validate(resource, obj)
        obj = completed(resource, obj)
        self._admission.check(resource, obj)
        if known := self._store.get(resource.plural, metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(resource, known.name, is_going=known.is_going)
        if _is_dry(params):
            return Stored(resource, obj).body
        return self._store.add(resource, obj).body

    def get(self, place: Place) -> bytes:
        """GET of one."""
        return self.found(place).body

    def found(self, place: Place) -> Stored:
        """The object, or 404."""
        stored = self._store.get(place.resource.plural, place.namespace, place.name)
        if stored is None:
            raise not_found(place.resource, place.name)
        return stored

    def many(self, place: Place, params: Mapping[str, str]) -> bytes:
        """GET of many."""
        resource = place.resource
        matches = selecting(resource, params.get("labelSelector", ""), params.get("fieldSelector", ""))
        found = sorted(self._store.all(resource.plural, place.namespace), key=lambda stored: stored.key)
        found = [stored for stored in found if matches(stored.obj)]
        metadata: Obj = {"resourceVersion": str(self._store.revision)}
        if token := params.get("continue"):
            revision, last = self._continued(token)
            found = [stored for stored in found if list(stored.key) > last]
            metadata["resourceVersion"] = str(revision)
        limit = int(params.get("limit") or 0)
        if limit and len(found) > limit:
            metadata["remainingItemCount"] = len(found) - limit
            found = found[:limit]
            token = json.dumps([int(metadata["resourceVersion"]), list(found[-1].key)])
            metadata["continue"] = base64.urlsafe_b64encode(token.encode()).decode()
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return json.dumps(head).encode()[:-1] + b',"items":[' + b",".join(stored.item for stored in found) + b"]}"

    def replace(self, place: Place, body: Obj, params: Mapping[str, str]) -> bytes:
        """PUT."""
        old = self.found(place)
        new = self._decoded(place, body, params)
        if (new.get("metadata") or {}).get("name") != place.name:
            raise bad_request(f"the name of the object does not match the name on the URL ({place.name})")
        return self._changed(old, new, place, params)

    def patch(self, place: Place, patch: Patch, params: Mapping[str, str]) -> tuple[int, bytes]:
        """PATCH; an apply creates what is not there."""
        old = self._store.get(place.resource.plural, place.namespace, place.name)
        if not patch.is_apply:
            old = self.found(place)
            body = patched(place.resource, old.obj, patch)
            return 200, self._changed(old, self._decoded(place, body, params), place, params)
        manager = params.get("fieldManager", "")
        if not manager:
            cause = ("fieldManager", "Required value", "is required for apply patch")
            raise _of_options(cause)
        applied = self._decoded(place, patch.body, params)
        if old is None:
            body = {**applied, "metadata": {**applied.get("metadata", {}), "name": place.name}}
            answer = self.create(place, body, params)
            self._remember(place, manager, applied, params)
            return 201, answer
        before = self._applied.get((old.uid, manager), {})
        self._refuse_others(old, applied, manager, params)
        answer = self._changed(old, patched(place.resource, old.obj, patch, applied, before), place, params)
        self._remember(place, manager, applied, params)
        return 200, answer

    def delete(self, place: Place, body: Obj, params: Mapping[str, str]) -> bytes:
        """DELETE of one."""
        stored = self.found(place)
        options = DeleteOptions.from_request(dict(params), body)
        if _is_dry(params) or body.get("dryRun"):
            self._deletion.check(stored, options)
            return stored.body
        last = self._deletion.delete(stored, options)
        if place.resource.plural == "namespaces":
            self.empty(place.name)
        if place.resource.returns_deleted or last.is_going:
            return last.body
        details = {"name": last.name, "kind": place.resource.plural, "uid": last.uid}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return json.dumps(status).encode()

    def delete_many(self, place: Place, body: Obj, params: Mapping[str, str]) -> bytes:
        """DELETE of a collection."""
        answer = self.many(place, params)
        matches = selecting(place.resource, params.get("labelSelector", ""), params.get("fieldSelector", ""))
        options = DeleteOptions.from_request(dict(params), body)
        for stored in self._store.all(place.resource.plural, place.namespace):
            if matches(stored.obj):
                self._deletion.delete(stored, options)
        return answer

    def empty(self, namespace: str) -> None:
        """Remove everything in a namespace that is gone."""
        for stored in list(self._store.by_uid.values()):
            if stored.namespace == namespace and self._store.by_uid.get(stored.uid) is stored:
                self._store.remove(stored)

    # Parts of the above

    def _decoded(self, place: Place, body: Obj, params: Mapping[str, str]) -> Obj:
        resource = place.resource
        given = (body.get("apiVersion", resource.api_version), body.get("kind", resource.kind))
        if given != (resource.api_version, resource.kind):
            text = f"the API version in the data ({given[0]}) does not match the expected API version"
            raise bad_request(
                f"{text} ({resource.api_version})" if given[1] == resource.kind else f"no kind {given[1]!r}"
            )
        body = {key: value for key, value in body.items() if key not in {"kind", "apiVersion"}}
        return decoded(resource, body, strict=params.get("fieldValidation") == "Strict")

    def _in_namespace(self, place: Place, metadata: Obj) -> None:
        if not place.resource.is_namespaced:
            return
        if metadata.setdefault("namespace", place.namespace) != place.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if not self._store.get("namespaces", "", place.namespace):
            message = f'namespaces "{place.namespace}" not found'
            raise ApiError(404, "NotFound", message, details={"name": place.namespace, "kind": "namespaces"})

    def _changed(self, old: Stored, new: Obj, place: Place, params: Mapping[str, str]) -> bytes:
        resource, metadata = place.resource, {**new.get("metadata", {})}
        given = metadata.get("resourceVersion")
        if given and str(given) != str(old.revision):
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(resource, old.name, why)
        if metadata.get("uid", old.uid) != old.uid:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old.uid}"
            raise conflict(resource, old.name, why)
        kept = {
            key: old.obj["metadata"][key]
            for key in (*_OWN, "resourceVersion", "name", "namespace")
            if key in old.obj["metadata"]
        }
        metadata = {
            key: value for key, value in metadata.items() if value not in ({}, [], None) and key not in _OWN
        } | kept
        new = _of_subresource(old.obj, new, place.subresource) | {"metadata": metadata}
        if place.subresource != "status":
            validate(resource, new)
            validate_change(resource, old.obj, new)
        if _is_dry(params):
            return Stored(resource, new).body
        return self._deletion.settle(self._store.replace(old, new)).body

    def _remember(self, place: Place, manager: str, applied: Obj, params: Mapping[str, str]) -> None:
        if not _is_dry(params):
            self._applied[self.found(place).uid, manager] = applied

    def _refuse_others(self, old: Stored, applied: Obj, manager: str, params: Mapping[str, str]) -> None:
        """409 where another manager has applied another value, unless this one insists."""
        if params.get("force") in {"true", "True"}:
            return
        for (uid, other), its in self._applied.items():
            if uid != old.uid or other == manager:
                continue
            if fields := list(_differing(its, applied)):
                told = ", ".join(fields)
                message = f'Apply failed with {len(fields)} conflict: conflict with "{other}": {told}'
                raise ApiError(409, "Conflict", message)

    def _continued(self, token: str) -> tuple[int, list[str]]:
        try:
            revision, last = json.loads(base64.urlsafe_b64decode(token))
        except ValueError:
            raise bad_request("continue key is not valid") from None
        if revision < self._store.compacted:
            raise expired("The provided continue parameter is too old to display a consistent list result.")
        return int(revision), list(last)


def _is_dry(params: Mapping[str, str]) -> bool:
    return params.get("dryRun") == "All"


def _of_subresource(old: Obj, new: Obj, subresource: str) -> Obj:
    """A status is written by itself, and by nothing else."""
    if subresource == "status":
        return {**old, "status": new.get("status", {})}
    return {**new, "status": old["status"]} if "status" in old else {**new}


def _of_options(cause: tuple[str, str, str]) -> ApiError:
    error = invalid(Resource("", "PatchOptions", "meta.k8s.io"), "", [cause])
    error.details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": (error.details or {})["causes"]}
    return error


def _differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Paths of the values that both say, and say differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found for key in one.keys() & other.keys() for found in _differing(one[key], other[key], f"{path}.{key}")
        ]
    return [] if one == other else [path]
