"""The credits page over HTTP, in front of the sandbox. Who may see what is proven with a whole Airflow."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import AIRFLOW_VERSION

pytestmark = pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the credits page needs Airflow 3.1")

KINDS = ["getCreditBalance", "getInvoiceHistory", "getInvoiceHistory", "getUsageHistory"]


@pytest.fixture(autouse=True)
def _logged_in(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, dag_folder: DagFolder) -> Iterator[None]:
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.security import get_user

    from airflow_provider_cfbilling.ui import accounts
    from airflow_provider_cfbilling.ui.app import app

    token = fresh_token()  # no other test's requests count against its rate limit
    sandbox.configure(token=token)
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
    monkeypatch.setattr(accounts, "_last_read", {})
    create_auth_manager()
    app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="op", role="OP")
    yield
    app.dependency_overrides.clear()


@asynccontextmanager
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    from airflow_provider_cfbilling.ui.app import app

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
        yield client


def visit(*, as_role: str | None = None, times: int = 1) -> list[httpx.Response]:
    """Return what so many viewers get who come at once."""

    async def visits() -> list[httpx.Response]:
        async with browser() as client:
            return list(await asyncio.gather(*(client.get("/fragment") for _ in range(times))))

    if as_role:
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from airflow.api_fastapi.core_api.security import get_user

        from airflow_provider_cfbilling.ui.app import app

        app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="x", role=as_role)
    return asyncio.run(asyncio.wait_for(visits(), timeout=60))


def test_page_shows_the_account(sandbox: Sandbox) -> None:
    sandbox.configure(balance_cents=2400, spend_per_day_cents=240)
    (response,) = visit()
    assert response.status_code == 200
    for said in ("cfbilling_default", "$24.00", "visa ending in 4242", "active"):
        assert said in response.text


def test_200_viewers_cost_one_request_of_each_kind(sandbox: Sandbox) -> None:
    responses = visit(times=200)
    assert {response.status_code for response in responses} == {200}
    assert sorted(str(request.operation) for request in sandbox.requests()) == KINDS


def test_failed_reads_are_not_repeated_by_each_viewer(sandbox: Sandbox) -> None:
    sandbox.fault("*", "status", status=503, times=None)
    responses = visit(times=50)
    assert {response.status_code for response in responses} == {200}
    assert "503" in responses[0].text
    assert len(sandbox.requests()) == len(KINDS)


def test_hanging_cloudflare_holds_neither_page_nor_event_loop(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_cfbilling.ui import accounts

    monkeypatch.setattr(accounts, "_PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr(accounts, "_READ_TIMEOUT_SECONDS", 6.0)
    sandbox.fault("*", "hang", times=None)

    async def story() -> tuple[str, list[str]]:
        ended: list[str] = []
        async with browser() as client:

            async def get(path: str) -> str:
                text = (await client.get(path)).text
                ended.append(path)
                return text

            page = asyncio.create_task(get("/fragment"))
            while not await asyncio.to_thread(sandbox.requests):
                await asyncio.sleep(0.01)
            await get("/static/credits.js")
            return await page, ended

    text, ended = asyncio.run(asyncio.wait_for(story(), timeout=30))
    assert ended == ["/static/credits.js", "/fragment"]
    assert "Cloudflare has not responded within 3 s." in text


def test_last_values_stay_with_the_reason(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_cfbilling.ui import accounts

    sandbox.configure(balance_cents=2400)
    assert "$24.00" in visit()[0].text
    monkeypatch.setattr(accounts, "_MAX_AGE_SECONDS", 0.0)
    sandbox.fault("*", "status", status=503, times=None)
    (response,) = visit()
    assert "$24.00" in response.text
    assert "503" in response.text
    assert "What is shown was read before" in response.text
    sandbox.clear_faults()
    sandbox.configure(balance_cents=1100)
    (response,) = visit()
    assert "$11.00" in response.text
    assert "read before" not in response.text


def test_values_of_other_credentials_are_not_shown(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.configure(balance_cents=2400)
    assert "$24.00" in visit()[0].text
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token="another-token"))
    (response,) = visit()
    assert "$24.00" not in response.text


def test_connection_that_cannot_be_used_says_why(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MISTYPED", "cfbilling://123:hush-hush@")
    (response,) = visit()
    assert "Connection &#x27;mistyped&#x27; cannot be used" in response.text
    assert "hush-hush" not in response.text


def test_named_connections_are_shown(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RESEARCH", sandbox.connection_uri())
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "http://cfbilling.example.com")
    monkeypatch.setenv("AIRFLOW__CFBILLING__PAGE_CONNECTIONS", "research, missing")
    (response,) = visit()
    assert response.text.count("<h2>") == 2
    assert "research" in response.text


def test_with_teams_only_stored_connections_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment belong to no team."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    (response,) = visit()
    assert "No connection of type" in response.text


def test_environment_goes_before_what_is_stored(sandbox: Sandbox) -> None:
    """As it does in a task."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="cfbilling_default", uri="cfbilling://stored:and-hidden@"))
    try:
        (response,) = visit()
    finally:
        with create_session() as session:
            session.query(Connection).delete()
    assert response.text.count("<h2>") == 1
    assert "visa ending in 4242" in response.text


def test_charge_links_to_its_dag_run_for_those_who_may_read_its_dag(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    run = dag_folder.run(
        'CfBillingCreateTopupOperator(task_id="task", amount_cents=2500, wait_for_completion=False)'
    )
    (charge,) = sandbox.charges()
    assert run.result()["payment_intent_id"] == charge.invoice_id
    (response,) = visit()
    (linked,) = re.findall(r'data-route="/dags/(dag_\d+)/runs/', response.text)
    monkeypatch.setattr(
        SimpleAuthManager, "is_authorized_dag", lambda self, *, details, **rest: details.id != linked
    )
    (response,) = visit()
    assert charge.invoice_id in response.text
    assert linked not in response.text


def test_xcoms_that_cannot_be_read_cost_only_the_links(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_cfbilling.ui import charges

    monkeypatch.setattr(charges, "XComModel", None)
    (response,) = visit()
    assert response.status_code == 200
    assert "visa ending in 4242" in response.text


def test_failure_shows_nothing_and_is_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_cfbilling.ui import app

    monkeypatch.setattr(app, "page", lambda *values: 1 / 0)
    (response,) = visit()
    assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("role", "status"), [("VIEWER", 403), ("USER", 403), ("OP", 200), ("ADMIN", 200)])
def test_who_may_not_read_connections_sees_nothing(sandbox: Sandbox, role: str, status: int) -> None:
    (response,) = visit(as_role=role)
    assert response.status_code == status
    assert sandbox.requests() == [] or status == 200


def test_no_secret_is_shown(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    token = fresh_token()
    sandbox.configure(token=token)
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
    (response,) = visit()
    assert token not in response.text + str(response.headers)


@pytest.mark.parametrize("path", ["/fragment", "/static/credits.js", "/no/such/page"])
def test_nothing_is_cached_or_sniffed(path: str) -> None:
    async def get() -> Any:
        async with browser() as client:
            return (await client.get(path)).headers

    headers = asyncio.run(get())
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_there_is_nothing_else(path: str) -> None:
    async def get() -> int:
        async with browser() as client:
            return (await client.get(path)).status_code

    assert asyncio.run(get()) == 404
