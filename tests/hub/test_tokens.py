"""Which tokens of the configuration are hashed in one round."""

from pathlib import Path

import pytest

from mlhub_hub.services import tokens_are_strong
from mlhub_hub.settings import HubSettings

LONG = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("settings", "are_strong"),
    [
        ({"api_token": LONG}, True),
        ({"api_token": LONG, "ssh_gateway_hub_api_token": LONG}, True),
        ({"api_token": LONG, "ssh_gateway_hub_api_token": LONG[1:]}, False),
        ({"api_token": LONG, "user_config": Path(__file__)}, False),
    ],
)
def test_short_tokens_and_strangers_keep_every_round(settings: dict[str, object], are_strong: bool) -> None:
    assert tokens_are_strong(HubSettings.model_validate(settings)) is are_strong
