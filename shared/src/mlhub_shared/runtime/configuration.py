"""Reading settings at the start of a service; wrong ones end it with a sentence each, and an exit code of their own."""

import os
import sys
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

EXIT_CODE = os.EX_CONFIG
"""Of a service whose settings are wrong: starting it again does not help."""

HEADING = "Can't start with these settings:"
"""First line of what such a service says; the sentences follow, to the end."""

S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S]) -> S:
    """Read settings; ends the process if they are wrong."""
    try:
        return settings()
    except ValidationError as error:
        refuse(*(_sentence(settings, details) for details in error.errors(include_input=False, include_url=False)))
    except SettingsError as error:
        refuse(str(error))


def refuse(*sentences: str) -> NoReturn:
    """End the process, because its settings are wrong."""
    print("\n".join([HEADING, *(f"  {sentence}" for sentence in sentences)]), file=sys.stderr, flush=True)
    raise SystemExit(EXIT_CODE)


def _sentence(settings: type[BaseSettings], error: Any) -> str:
    # Never the value: it may be a secret.
    message: str = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name, *rest = map(str, error["loc"])
    if name in settings.model_fields:
        name = f"{settings.model_config.get('env_prefix', '')}{name}".upper()
    return f"{'.'.join([name, *rest])}: {message}"
