"""A client of the sandbox."""

from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import client_of


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[CfBillingClient]:
    """A client that tries every read once."""
    with client_of(sandbox) as client:
        yield client
