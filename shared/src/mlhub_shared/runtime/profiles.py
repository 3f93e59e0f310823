"""Profiles from the administrator's YAML file."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlhub_shared.contracts.policy import Profile

DEFAULT_IMAGE = "mlhub-workspace"
"""Made by `make images`."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    profiles: tuple[Profile, ...] = Field(min_length=1)
    images: tuple[str, ...] = ()


def read_profiles(path: Path) -> tuple[tuple[Profile, ...], tuple[str, ...]]:
    """The profiles and the patterns of allowed images; ValueError with the place of what is wrong."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        file = _File.model_validate(content)
    except OSError as error:
        raise ValueError(f"the file of profiles {path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"the file of profiles {path} is not YAML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ValueError(f"the file of profiles {path} is wrong: {problems}") from None
    return file.profiles, file.images


def default_profiles(image: str, port: int) -> tuple[Profile, ...]:
    """What there is without a file: one image."""
    return (
        Profile(
            name="default",
            display_name="JupyterLab",
            description="Python and JupyterLab.",
            image=image,
            port=port,
        ),
    )
