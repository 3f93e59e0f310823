"""Which backend runs the workspaces: as asked, else as this instance did before, else what this machine can do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlhub_standalone.engine import Engine, EngineAway, socket_of
from mlhub_standalone.errors import LauncherError
from mlhub_standalone.options import AUTO, DOCKER, PROCESS

if TYPE_CHECKING:
    from mlhub_shared.contracts.policy import Policy


@dataclass(frozen=True)
class Place:
    """What decides where nobody has."""

    engine: Engine
    known: str | None = None
    """What has run this instance's workspaces before. Their files are with it: no other one comes in unasked."""
    in_container: bool = False
    profiles: Path | None = None
    """Where the settings name no file of profiles."""

    @property
    def has_socket(self) -> bool:
        """Somebody has given us an engine, whether it answers or not."""
        file = socket_of(self.engine.url)
        return file is None or file.exists()


@dataclass(frozen=True)
class Choice:
    """The backend, and why it is that one, as a line for people."""

    backend: str
    why: str


def choose(asked: str, place: Place) -> Choice:
    """Decide; LauncherError where what was asked for can't be had."""
    if asked == AUTO:
        return _choose(place)
    why = "as asked for"
    if place.known not in {None, asked}:
        theirs = "containers" if place.known == DOCKER else "processes"
        why += f"; what ran as {theirs} has its files there, and not here"
    return _containers(place, why) if asked == DOCKER else Choice(asked, f"{_NAMES[asked]}, {why}")


def policy_of_images(profiles: Path | None = None) -> "Policy":
    """What holds where workspaces are containers; ends the process where the settings of it are wrong.

    `profiles`: the file that is read where the settings name none.
    """
    # Not before somebody asks: they take long to import.
    from mlhub_shared.runtime import configuration
    from mlhub_shared.runtime.settings import PolicySettings

    settings = configuration.load(PolicySettings)
    if settings.profiles_file is None and profiles is not None and profiles.is_file():
        settings = settings.model_copy(update={"profiles_file": profiles})
    try:
        return settings.policy(images_allowed=True, gpus_allowed=True)
    except ValueError as error:
        configuration.refuse(str(error))


def default_image(profiles: Path | None = None) -> str | None:
    """The image of those who choose none."""
    profile = policy_of_images(profiles).default_profile
    return profile.image if profile else None


_NAMES = {PROCESS: "workspaces run as processes", DOCKER: "workspaces run as containers"}


def _choose(place: Place) -> Choice:
    if place.known == DOCKER:
        return _containers(place, "as they did before")
    if place.known == PROCESS:
        return Choice(PROCESS, f"{_NAMES[PROCESS]}, whose files are here (--backend docker begins anew)")
    if place.in_container and place.has_socket:
        # It was mounted for this: to run something else instead would only hide what is wrong with it.
        return _containers(place, "as there is an engine")
    return _by_what_is_there(place)


def _by_what_is_there(place: Place) -> Choice:
    try:
        version, image = place.engine.require(), default_image(place.profiles)
        if image is None or not place.engine.has_image(image):
            return Choice(
                PROCESS, f"{_NAMES[PROCESS]}: Docker {version} answers, but has no image {image} (make images)"
            )
    except EngineAway as error:
        return Choice(PROCESS, f"{_NAMES[PROCESS]}: {error}")
    return Choice(DOCKER, f"{_NAMES[DOCKER]}: Docker {version} answers and has the image {image}")


def _containers(place: Place, why: str) -> Choice:
    """Whatever images are there: another one than the default may be all that people use, and a pull may bring it."""
    version, image = _require(place.engine), default_image(place.profiles)
    chosen = f"{_NAMES[DOCKER]}, {why} (Docker {version})"
    if image is not None and not place.engine.has_image(image):
        chosen += f"; there is no image {image} yet: a start has to fetch it, unless it is built (make images)"
    return Choice(DOCKER, chosen)


def _require(engine: Engine) -> str:
    try:
        return engine.require()
    except EngineAway as error:
        raise LauncherError(
            f"{error}\n  workspaces as containers need it; as processes, without isolation: mlhub up --backend process"
        ) from None
