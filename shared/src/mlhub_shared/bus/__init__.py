"""The bus: the only place that knows NATS."""

from mlhub_shared.bus.bucket import Bucket, Entry
from mlhub_shared.bus.bus import Bus
from mlhub_shared.bus.connection import BusSettings
from mlhub_shared.bus.consumer import Consumer, Delivery
from mlhub_shared.bus.lease import Lease
from mlhub_shared.bus.table import Changes, Table
from mlhub_shared.bus.timers import Timers

__all__ = [
    "Bucket",
    "Bus",
    "BusSettings",
    "Changes",
    "Consumer",
    "Delivery",
    "Entry",
    "Lease",
    "Table",
    "Timers",
]
