"""How a workspace is entered that only its engine can run programs in, and that has a loopback of its own.

Engine-neutral: what an engine has to give for it is in `place`.
"""

from mlhub_spawner_worker.backends.inside.entry import InsideEntry
from mlhub_spawner_worker.backends.inside.place import Exec, Lost, Place, Said, Streams

__all__ = ["Exec", "InsideEntry", "Lost", "Place", "Said", "Streams"]
