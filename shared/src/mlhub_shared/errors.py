"""What a handler's caller is to do next.

MLHubError
├── Permanent          give up: ack, and say so in record, event and dead-letter stream
│   └── NotFound       what was asked about does not exist
└── Temporary(delay)   try again after the delay
    └── BusUnavailable the bus did not answer in time
    └── Conflict       somebody else wrote first: read again and decide anew
"""

from datetime import timedelta


class MLHubError(Exception):
    """Base of everything the services raise on purpose; its text is for people."""


class Permanent(MLHubError):
    """Trying again won't help."""


class NotFound(Permanent):
    """What was asked about does not exist."""


class Temporary(MLHubError):
    """Trying again after `delay` may help."""

    def __init__(self, message: str, *, delay: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.delay = delay


class BusUnavailable(Temporary):
    """The bus did not answer in time."""


class Conflict(Temporary):
    """Somebody else wrote first: read again and decide anew."""

    def __init__(self, message: str) -> None:
        super().__init__(message, delay=timedelta(milliseconds=50))
