"""What the manifests say, made true for processes of this machine.

Every pod and every Service has an address of its own in 127/8, so that ports stay as the manifests have them. Names of
Services, paths of mounts and addresses that mean "all" are replaced in variables, arguments and files; nothing else is.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from tests.support.kube.sandbox import expanded
from tests.support.manifests.objects import Obj, Objs, Workload, find, of_kind
from tests.support.manifests.pod_rules import quantity

Files = Mapping[str, str]

_ALL = re.compile(r"\b0\.0\.0\.0\b")
_PORTS_OF_NATS = re.compile(r"^(\s*)port:", re.MULTILINE)


class Addresses:
    """Of everything that has a name; those of the fake cluster's own pods are in other networks."""

    def __init__(self, namespace: str, objects: Objs) -> None:
        self._prefix = f"127.{random.randrange(241, 255)}.{random.randrange(1, 255)}"
        self._last = 9
        self._namespace = namespace
        self._services = [one for one in of_kind(objects, "Service") if one["metadata"]["namespace"] == namespace]
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Of a Service, or of a pod that has a name in the DNS; always the same."""
        return self._known.setdefault(name, self.new())

    def new(self) -> str:
        """One that nobody has had."""
        self._last += 1
        return f"{self._prefix}.{self._last}"

    def named(self, text: str) -> str:
        """With addresses in place of names before ports, and this machine's name in place of lists of names."""
        names = [one["metadata"]["name"] for one in self._services]
        if text and all(part.strip() in names for part in text.split(",")):
            return "localhost"
        known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        pattern = rf"(?<![\w.-])((?:[\w-]+\.)?(?:{known}))(?:\.{self._namespace}\.svc)?(?=:\d)"
        return re.sub(pattern, lambda found: self.of(found[1]), text)


@dataclass(frozen=True)
class Deployed:
    """A rendered deployment, its secrets, and the folder where its volumes are."""

    objects: Objs
    namespace: str
    addresses: Addresses
    folder: Path
    secrets: Mapping[str, Files] = field(repr=False)

    def service(self, name: str) -> Obj:
        """The Service of that name."""
        return find(self.objects, "Service", name, self.namespace)

    def config_map(self, name: str) -> Files:
        """What is in the ConfigMap that has exactly this name."""
        [data] = [one["data"] for one in of_kind(self.objects, "ConfigMap") if one["metadata"]["name"] == name]
        return dict(data)


class Place:
    """Where one pod is: its address, and folders in place of its volumes."""

    def __init__(self, deployed: Deployed, workload: Workload, name: str, address: str) -> None:
        self.deployed, self.workload, self.name, self.address = deployed, workload, name, address
        self.folder = deployed.folder / "pods" / name
        [self._container] = workload.pod["containers"]
        volumes = self._volumes()
        self._paths = {one["mountPath"]: volumes[one["name"]] for one in self._container["volumeMounts"]}

    def environment(self) -> dict[str, str]:
        """Every variable that the container gets from its manifest."""
        env: dict[str, str] = {}
        for source in self._container.get("envFrom", ()):
            env |= self.deployed.config_map(source["configMapRef"]["name"])
        for one in self._container.get("env", ()):
            env[one["name"]] = expanded(self._value(one), env)
        return {name: self.here(value) for name, value in env.items()}

    def command(self) -> list[str]:
        """What it runs; empty: what its image does."""
        words = [*self._container.get("command", ()), *self._container.get("args", ())]
        return [self.here(expanded(word, self.environment())) for word in words]

    def here(self, text: str) -> str:
        """As it is on this machine."""
        for path, folder in self._paths.items():
            if text == path or text.startswith(f"{path}/"):
                return f"{folder}{text.removeprefix(path)}"
        return _ALL.sub(self.address, self.deployed.addresses.named(text))

    def probe(self, kind: str) -> tuple[int, str | None]:
        """Port and path of a probe of the container; no path: that somebody listens is enough."""
        probe = self._container[kind]
        how = probe.get("httpGet") or probe["tcpSocket"]
        port = how["port"]
        return (self.workload.ports[port] if isinstance(port, str) else port), how.get("path")

    def _value(self, one: Obj) -> str:
        if "value" in one:
            return str(one["value"])
        source = one["valueFrom"]
        if "configMapKeyRef" in source:
            return self.deployed.config_map(source["configMapKeyRef"]["name"])[source["configMapKeyRef"]["key"]]
        if "resourceFieldRef" in source:
            return self._resource(source["resourceFieldRef"])
        known = {
            "metadata.name": self.name,
            "metadata.namespace": self.deployed.namespace,
            "status.podIP": self.address,
        }
        return known[source["fieldRef"]["fieldPath"]]

    def _resource(self, reference: Obj) -> str:
        """How much of something the container asks for or may use, in parts of the divisor."""
        kind, _, resource = reference["resource"].partition(".")
        amount = quantity(self._container["resources"][kind][resource])
        return str(ceil(amount / quantity(reference.get("divisor", "1"))))

    def _volumes(self) -> dict[str, Path]:
        """Their folders, made and filled."""
        folders = {}
        for name, volume in self.workload.volumes.items():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName") or f"{name}-{self.name}"
            is_kept = "persistentVolumeClaim" in volume or not volume
            folder = self.deployed.folder / "claims" / claim if is_kept else self.folder / name
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for file, text in self._files(volume).items():
                (folder / file).write_text(self._text(file, text, folder))
                (folder / file).chmod(0o440)
            folders[name] = folder
        return folders

    def _files(self, volume: Obj) -> Files:
        sources = volume.get("projected", {}).get("sources") or [volume]
        return {name: text for source in sources for name, text in self._source(source).items()}

    def _source(self, source: Obj) -> Files:
        """Of one source of a volume; KeyError if it is not optional and not there."""
        if reference := source.get("secret"):
            name = reference.get("name") or reference["secretName"]
            found = self.deployed.secrets.get(name, {}) if reference.get("optional") else self.deployed.secrets[name]
        elif reference := source.get("configMap"):
            known = {one["metadata"]["name"] for one in of_kind(self.deployed.objects, "ConfigMap")}
            is_missing = reference.get("optional") and reference["name"] not in known
            found = {} if is_missing else self.deployed.config_map(reference["name"])
        else:
            return {}
        if "items" not in reference:
            return found
        wanted = ((one["key"], one["path"]) for one in reference["items"])
        return {path: found[key] for key, path in wanted if key in found or not reference.get("optional")}

    def _text(self, file: str, text: str, folder: Path) -> str:
        """Files of nats-server name ports, a path and other servers; those of ours name nothing of the cluster."""
        if not file.endswith(".conf"):
            return text
        data = self.deployed.folder / "claims" / f"data-{self.name}"
        text = _PORTS_OF_NATS.sub(rf'\1host: "{self.address}"\n\1port:', text.replace('"/data', f'"{data}'))
        return self.deployed.addresses.named(text)
