import subprocess
import sys

import pytest

from mlhub_shared.runtime import configuration

SECRET = "a-secret-value"
SERVICE = """
from typing import Annotated
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from mlhub_shared.runtime import configuration
from mlhub_shared.runtime.settings import CommonSettings

class Settings(CommonSettings):
    model_config = SettingsConfigDict(env_prefix="MLHUB_TOY_", extra="ignore")
    token: Annotated[SecretStr, Field(min_length=99)] | None = None
    sizes: list[int] = []

print("runs on port", configuration.load(Settings).http_port)
"""


def run(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", SERVICE], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_right_settings_are_read() -> None:
    assert run(MLHUB_TOY_HTTP_PORT="81").stdout == "runs on port 81\n"


def test_wrong_ones_end_it_with_a_sentence_for_each_and_without_their_values() -> None:
    ended = run(MLHUB_TOY_HTTP_PORT="high", MLHUB_LOG_LEVEL="loud", MLHUB_TOY_TOKEN=SECRET)
    assert ended.returncode == configuration.EXIT_CODE == 78
    heading, *sentences = ended.stderr.splitlines()
    assert heading == configuration.HEADING
    assert {line.partition(":")[0] for line in sentences} == {
        "  MLHUB_TOY_HTTP_PORT",
        "  MLHUB_LOG_LEVEL",
        "  MLHUB_TOY_TOKEN",
    }
    assert SECRET not in ended.stderr


@pytest.mark.parametrize("value", ["1, 2", f"[{SECRET}"])
def test_one_that_can_not_even_be_parsed_is_a_sentence_too(value: str) -> None:
    ended = run(MLHUB_TOY_SIZES=value)
    assert ended.returncode == configuration.EXIT_CODE
    assert "sizes" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stderr
