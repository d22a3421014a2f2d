import pytest


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded charge may be under way for two seconds, not five: what waits for that waits less."""
    monkeypatch.setattr("airflow_provider_cfbilling.charging.protocol.SEND_WITHIN_SECONDS", 2.0)
