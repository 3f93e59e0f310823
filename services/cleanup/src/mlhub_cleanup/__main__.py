"""`python -m mlhub_cleanup`."""

from functools import partial

from mlhub_cleanup.service import build
from mlhub_cleanup.settings import CleanupSettings
from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.service import main

if __name__ == "__main__":
    settings = configuration.load(CleanupSettings)
    main("cleanup", settings, partial(build, settings=settings))
