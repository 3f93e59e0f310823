"""Which GPUs a node has, and how a container is given some of them. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

_KIND = "gpu"
_CDI = "nvidia.com/gpu="


def found(setting: str, info: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the node's GPUs: none, those that are listed, or with `auto` those that the engine tells of.

    An engine tells of the generic resources that its configuration names, and, from version 28 on, of devices by CDI.
    """
    if setting.strip().lower() != "auto":
        return tuple(dict.fromkeys(part.strip() for part in setting.split(",") if part.strip()))
    return _devices(info) or _resources(info)


def knows_gpus(info: Mapping[str, Any]) -> bool:
    """Whether the engine can give GPUs to containers, however many there are."""
    return "nvidia" in (info.get("Runtimes") or {})


def request(gpu_ids: Iterable[str]) -> list[dict[str, Any]]:
    """The device request for these GPUs and no others."""
    ids = list(gpu_ids)
    return [{"Driver": "nvidia", "DeviceIDs": ids, "Capabilities": [["gpu"]]}] if ids else []


def _devices(info: Mapping[str, Any]) -> tuple[str, ...]:
    ids = [str(device.get("ID", "")) for device in info.get("DiscoveredDevices") or []]
    numbers = [one.removeprefix(_CDI) for one in ids if one.startswith(_CDI)]
    # Each is listed by its number and by its UUID, and all of them once more together.
    return tuple(sorted((one for one in numbers if one.isdigit()), key=int))


def _resources(info: Mapping[str, Any]) -> tuple[str, ...]:
    named, counted = [], 0
    for resource in info.get("GenericResources") or []:
        if one := resource.get("NamedResourceSpec"):
            named += [str(one["Value"])] if _KIND in str(one["Kind"]).lower() else []
        elif one := resource.get("DiscreteResourceSpec"):
            counted += int(one["Value"]) if _KIND in str(one["Kind"]).lower() else 0
    return tuple(named) or tuple(str(number) for number in range(counted))
