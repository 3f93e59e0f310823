"""How a workspace comes to be: volume, isolation, pod and name, each made once, whoever asks how often."""

import contextlib
from datetime import timedelta

from mlhub_shared.contracts.policy import Profile
from mlhub_shared.errors import Temporary
from mlhub_spawner_worker.backends.base import BackendError, Job
from mlhub_spawner_worker.backends.kubernetes import body, marks, objects
from mlhub_spawner_worker.backends.kubernetes.client import CLAIMS, PODS, POLICIES, SERVICES, Kind, KubeClient
from mlhub_spawner_worker.backends.kubernetes.configuration import KubernetesSettings
from mlhub_spawner_worker.backends.kubernetes.ending import Ending, Stranger, why_kept
from mlhub_spawner_worker.backends.kubernetes.pods import Pods
from mlhub_spawner_worker.backends.kubernetes.refusals import Missing, Moved, NoRoom, Taken
from mlhub_spawner_worker.backends.kubernetes.sightings import Ended, Pod

_TRIES = 3
"""A pod that has the name may have to go first, and another worker may be at it too."""

_LATE = "Another worker has started it anew meanwhile"

_CALLED = {POLICIES: "network policy", SERVICES: "service"}


class Making:
    """Makes what a workspace consists of."""

    def __init__(self, client: KubeClient, pods: Pods, ending: Ending, settings: KubernetesSettings) -> None:
        self._client, self._pods, self._ending, self._settings = client, pods, ending, settings
        self._profiles = {profile.name: profile for profile in settings.profiles}
        self._complete: dict[str, str] = {}
        """Uids of pods that have all they need."""

    def forget(self, name: str) -> None:
        """Its pod is gone."""
        self._complete.pop(name, None)

    async def make(self, job: Job) -> Pod:
        """All of it; its pod may not run yet."""
        known = self._pods.get(job.name)
        if known is not None and self._complete.get(job.name) == known.uid and _is_for(known, job):
            return known
        profile = self._profile(job)
        settings = self._settings
        plan = body.Plan(job, profile, settings.pull, settings.stop_grace, settings.unreachable)
        # Before anything is made: a profile may ask for what can't be.
        wanted = body.pod(plan)
        volume = await self._volume(job, profile)
        around = objects.Around(
            settings.services_namespace or self._client.own_namespace,
            settings.api_port,
            settings.open_to,
            settings.closed_to,
            settings.dns,
        )
        pod = await self._isolated(job, wanted, around, volume)
        await self._put(SERVICES, objects.service(job.record, profile, pod=pod.uid))
        self._complete[job.name] = pod.uid
        return pod

    async def _isolated(self, job: Job, wanted: objects.Json, around: objects.Around, volume: str | None) -> Pod:
        """Its pod, with its isolation there first. That goes with the volume; without one, with the pod."""
        known = self._pods.get(job.name)
        owner = known.uid if known is not None and _is_for(known, job) else None
        policy = await self._put(POLICIES, objects.policy(job.record, around, volume=volume, pod=owner))
        pod = await self._pod(job, wanted)
        if volume is None and pod.uid != owner:
            # Of the same version: nobody has tied it to a newer pod meanwhile.
            version = policy["metadata"]["resourceVersion"]
            await self._client.change(POLICIES, objects.policy(job.record, around, pod=pod.uid), version=version)
        return pod

    async def _put(self, kind: Kind, thing: objects.Json) -> objects.Json:
        """Have it so, unless it is of a newer start, or a stranger's."""
        for _ in range(_TRIES):
            with contextlib.suppress(Missing, Moved, Taken):
                found = await self._found(kind, thing["metadata"]["name"])
                if found is None:
                    return await self._client.create(kind, thing)
                if marks.generation_of(found) > marks.generation_of(thing):
                    raise Temporary(_LATE)
                # An owner that is not named any more is to be none any more.
                wanted = {**thing, "metadata": {"ownerReferences": None, **thing["metadata"]}}
                return await self._client.change(kind, wanted, version=found["metadata"]["resourceVersion"])
        raise Temporary(f"Somebody else changes its {_CALLED[kind]} again and again")

    async def _found(self, kind: Kind, name: str) -> objects.Json | None:
        try:
            found = await self._client.read(kind, name)
        except Missing:
            return None
        if not marks.carried(found):
            raise Stranger(_CALLED[kind], name)
        return found

    async def _volume(self, job: Job, profile: Profile) -> str | None:
        """Its uid; None if it needs none."""
        if not job.record.spec.is_mount_volume:
            return None
        # Looked for first: a full quota refuses to make it before it finds that it is there.
        claim = await self._ending.find_volume(job.name)
        if claim is None:
            try:
                claim = await self._client.create(CLAIMS, objects.claim(job.record, profile))
            except Taken:
                claim = await self._ending.find_volume(job.name)
        if claim is None:
            raise Temporary("its volume was removed as soon as it was made")
        if "deletionTimestamp" in claim["metadata"]:
            raise Temporary(why_kept(claim))
        return str(claim["metadata"]["uid"])

    async def _pod(self, job: Job, wanted: objects.Json) -> Pod:
        for _ in range(_TRIES):
            found = self._pods.get(job.name) or await self._create(job, wanted)
            if found is None:
                continue
            if _is_for(found, job):
                return found
            if found.generation > job.record.generation:
                raise Temporary(_LATE)
            await self._ending.begin(job.name, lambda pod: _is_in_the_way(pod, job), grace=timedelta(0))
            await self._ending.gone(found, grace=timedelta(seconds=1))
        raise Temporary("something else takes the pod's name again and again")

    async def _create(self, job: Job, wanted: objects.Json) -> Pod | None:
        """A new one, or what has its name."""
        try:
            made = await self._client.create(PODS, wanted)
        except Taken:
            return await self._ending.find(job.name)
        except NoRoom:
            # A full quota refuses it before it finds that it is there.
            found = await self._ending.find(job.name)
            if found is None or not _is_for(found, job):
                raise
            return found
        return self._pods.put(made)

    def _profile(self, job: Job) -> Profile:
        wanted = job.record.spec.profile
        profile = self._profiles.get(wanted) if wanted else next(iter(self._profiles.values()), None)
        if profile is None:
            raise BackendError(f"The profile {wanted} is not there any more; please choose another one.")
        return profile


def _is_in_the_way(pod: Pod, job: Job) -> bool:
    return pod.generation <= job.record.generation and not _is_for(pod, job)


def _is_for(pod: Pod, job: Job) -> bool:
    """It is this very start's, and nobody has deleted it; one that its node has ended makes way for another."""
    is_over = isinstance(pod.sighting, Ended) and pod.sighting.with_node
    return pod.generation == job.record.generation and not pod.is_leaving and not is_over
