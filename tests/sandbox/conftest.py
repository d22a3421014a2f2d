"""One sandbox for all of these tests, started afresh before each, and a way to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import requests

from airflow_provider_cfbilling.sandbox import Sandbox

Call = Callable[..., requests.Response]


@pytest.fixture(scope="session")
def served_sandbox() -> Iterator[Sandbox]:
    with Sandbox(settle_seconds=0.2, accounts=2) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(served_sandbox: Sandbox) -> Sandbox:
    served_sandbox.reset()
    return served_sandbox


@pytest.fixture
def call(sandbox: Sandbox) -> Call:
    """Call an operation by method and path after ``/ai-gateway/billing/``, over a fresh connection."""

    def call(method: str, path: str, *, token: str = sandbox.token, **options: object) -> requests.Response:
        account_id = options.pop("account_id", sandbox.account_id)
        url = f"{sandbox.base_url}/accounts/{account_id}/ai-gateway/billing/{path}"
        options = {
            "headers": {"Authorization": f"Bearer {token}"},
            "timeout": 5,
            "allow_redirects": False,
            **options,
        }
        return requests.request(method, url, **options)

    return call


@pytest.fixture
def topup(call: Call) -> Callable[..., requests.Response]:
    """Top up, by default with the smallest amount."""

    def topup(amount: object = 1000, **options: object) -> requests.Response:
        return call("POST", "topup", json={"amount": amount}, **options)

    return topup
