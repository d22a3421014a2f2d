"""A client of the sandbox, and patience cut short."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tenacity

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.http import transport
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import client_of, write_certificate


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_full_jitter", tenacity.wait_none())


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[CfBillingClient]:
    """A client that tries every read once."""
    with client_of(sandbox) as client:
        yield client


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, not trusted yet."""
    return write_certificate(tmp_path_factory.mktemp("tls") / "server.pem")


@pytest.fixture
def trusted_certificate(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    return certificate
