"""Settings of the clean-up as people write them."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from mlhub_cleanup.settings import CleanupSettings


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("CLEANUP_INTERVAL_SECONDS", "60", "interval", timedelta(minutes=1)),
        ("CLEANUP_INTERVAL_SECONDS", "-1", "interval", None),
        ("MLHUB_CLEANUP_INTERVAL_SECONDS", "0.5", "interval", timedelta(seconds=0.5)),
        ("MLHUB_CLEANUP_WARN_BEFORE", "90", "warn_before", timedelta(seconds=90)),
        ("MLHUB_CLEANUP_WARN_BEFORE", "PT1H", "warn_before", timedelta(hours=1)),
        ("MLHUB_CLEANUP_SERVICE_PREFIX", "services/clean", "service_prefix", "/services/clean/"),
        ("MLHUB_CLEANUP_HUB_PREFIX", "/", "hub_prefix", "/"),
        ("MLHUB_CLEANUP_HUB_API_URL", "http://hub/hub/api/", "hub_api_url", "http://hub/hub/api"),
        ("MLHUB_CLEANUP_PUBLIC_URL", "", "public_url", None),
        ("MLHUB_CLEANUP_HUB_API_TOKEN", "", "hub_api_token", None),
    ],
)
def test_a_variable_means(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: object) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(CleanupSettings(), field) == expected


def test_the_defaults() -> None:
    settings = CleanupSettings()
    assert (settings.interval, settings.warn_before) == (timedelta(hours=1), timedelta(minutes=15))
    assert settings.service_prefix == "/services/cleanup-service/"


def test_a_negative_warning_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLHUB_CLEANUP_WARN_BEFORE", "-5")
    with pytest.raises(ValidationError):
        CleanupSettings()
