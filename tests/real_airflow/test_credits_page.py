"""The credits page in whole Airflows: who sees what, and how a browser shows it."""

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.chromium import browser, keep_screenshot, needs_chromium
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import AIRFLOW_VERSION, WITH_UI, Airflow, an_airflow_can_run_here

sys.path.insert(0, str(Path(__file__).parents[2] / "demo"))
from ui import RESEARCH, SUPPORT_BOT, fill

pytestmark = [
    *an_airflow_can_run_here(seconds=240),
    pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the credits page needs Airflow 3.1"),
]

ROLES = ("viewer", "user", "op", "admin")
DAG_ID = "weekly_topup"
DAG = f"""
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG("{DAG_ID}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    CfBillingCreateTopupOperator(
        task_id="topup", cfbilling_conn_id="support_bot", amount_cents=2500, poll_interval=0.5
    )
"""


def users(folder: Path, names: dict[str, str]) -> dict[str, str]:
    """Return what lets an Airflow know users: by name, with a role (and teams), the name as password."""
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({name: name for name in names}))
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{name}:{role}" for name, role in names.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }


@pytest.fixture(scope="module")
def tokens(running_sandbox: Sandbox) -> list[str]:
    """Fill three accounts: what their connections hold as password."""
    running_sandbox.reset()
    secrets = [fresh_token() for _ in range(3)]
    fill(running_sandbox)
    for account_id, token in zip((None, RESEARCH, SUPPORT_BOT), secrets, strict=True):
        running_sandbox.configure(account_id, token=token, settle_seconds=0)
    return secrets


@pytest.fixture(scope="module")
def airflow(
    running_sandbox: Sandbox, tokens: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """An Airflow below a prefix, with two workers of its api-server, and a top-up that it has charged."""
    environment = {
        **users(tmp_path_factory.mktemp("users"), {role: role for role in ROLES}),
        "AIRFLOW__API__WORKERS": "2",
    }
    with Airflow(DAG, [DAG_ID], environment, WITH_UI, prefix="/airflow", user="admin") as airflow:
        for conn_id, account_id, token in zip(
            ("cfbilling_default", "research", "support_bot"),
            (None, RESEARCH, SUPPORT_BOT),
            tokens,
            strict=True,
        ):
            airflow.connect(conn_id, running_sandbox.connection_uri(account_id, token))
        airflow.trigger(DAG_ID)
        airflow.wait_until("the top-up is made", lambda: airflow.run_state(DAG_ID) == "success", 90)
        yield airflow


def fragment(airflow: Airflow, **arguments: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(f"{airflow.url}/cfbilling/fragment", timeout=30, **arguments)


def credentials(token: str, how: str) -> dict[str, Any]:
    """Return the arguments of a request by a user who is logged in: as a program, or as a browser."""
    if how == "bearer":
        return {"headers": {"Authorization": f"Bearer {token}"}}
    return {"cookies": {"_token": token}}


# who sees what


@pytest.mark.parametrize("how", ["bearer", "cookie"])
@pytest.mark.parametrize(
    ("who", "status"),
    [(None, 401), ("garbage", 403), ("viewer", 403), ("user", 403), ("op", 200), ("admin", 200)],
)
def test_each_role_gets_what_it_may_see(airflow: Airflow, who: str | None, status: int, how: str) -> None:
    token = airflow.token(who) if who in ROLES else "garbage"
    response = fragment(airflow, **(credentials(token, how) if who else {}))
    assert response.status_code == status
    assert ("support_bot" in response.text) == (status == 200)
    assert (response.headers["Cache-Control"], response.headers["X-Content-Type-Options"]) == (
        "no-store",
        "nosniff",
    )


def test_charge_links_to_its_dag_run(airflow: Airflow) -> None:
    html = fragment(airflow, cookies={"_token": airflow.token("op")}).text
    assert f'<a href="/airflow/dags/{DAG_ID}/runs/run" data-route="/dags/{DAG_ID}/runs/run">' in html


def test_no_secret_is_in_page_or_logs(airflow: Airflow, tokens: list[str]) -> None:
    html = fragment(airflow, cookies={"_token": airflow.token("admin")}).text
    for token in tokens:
        assert token not in html
        assert token not in airflow.log_tails()


def test_200_viewers_share_what_each_worker_reads(airflow: Airflow, running_sandbox: Sandbox) -> None:
    cookies = {"_token": airflow.token("op")}
    before = len(running_sandbox.requests())
    with ThreadPoolExecutor(25) as viewers:
        responses = list(viewers.map(lambda _: fragment(airflow, cookies=cookies), range(200)))
    assert {response.status_code for response in responses} == {200}
    kinds, accounts, workers = 4, 3, 2
    assert len(running_sandbox.requests()) - before <= kinds * accounts * workers


def test_page_that_cannot_be_loaded_leaves_airflow_running(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['airflow_provider_cfbilling.ui.app'] = None"
    )
    with Airflow(DAG, [DAG_ID], {"PYTHONPATH": str(tmp_path)}, WITH_UI) as airflow:
        headers = {"Authorization": f"Bearer {airflow.token(None)}"}
        plugins = requests.get(f"{airflow.url}/api/v2/plugins", headers=headers, timeout=30).json()
        (ours,) = [plugin for plugin in plugins["plugins"] if plugin["name"] == "cfbilling"]
        assert (ours["fastapi_apps"], ours["react_apps"]) == ([], [])
        assert "The page 'AI Gateway credits' is not available" in airflow.log_tails()
        assert "cfbilling_default" not in fragment(airflow, headers=headers).text


@pytest.mark.skipif(
    AIRFLOW_VERSION < (3, 3), reason="connections and Dags belong to teams from Airflow 3.3 on"
)
def test_team_sees_its_own_connections(
    running_sandbox: Sandbox, tokens: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {
        **users(tmp_path_factory.mktemp("teams"), {"ann": "op:ours", "bob": "op:theirs", "admin": "admin"}),
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW_CONN_OF_NO_TEAM": running_sandbox.connection_uri(token=tokens[0]),
    }
    commands = [("teams", "create", team) for team in ("ours", "theirs")]
    with Airflow(DAG, [DAG_ID], environment, WITH_UI, user="admin", commands=commands) as airflow:
        for team in ("ours", "theirs"):
            airflow.call(
                "POST",
                "connections",
                {
                    "connection_id": f"of_{team}",
                    "conn_type": "cfbilling",
                    "host": running_sandbox.base_url,
                    "login": running_sandbox.account_id,
                    "password": tokens[0],
                    "team_name": team,
                },
            )
        seen = {who: fragment(airflow, cookies={"_token": airflow.token(who)}).text for who in ("ann", "bob")}
    assert ("of_ours" in seen["ann"], "of_theirs" in seen["ann"]) == (True, False)
    assert ("of_ours" in seen["bob"], "of_theirs" in seen["bob"]) == (False, True)
    assert "of_no_team" not in seen["ann"] + seen["bob"]


# how a browser shows it


@contextmanager
def visited(
    airflow: Airflow, who: str, width: int = 1280, height: int = 860, scheme: Any = "light"
) -> Iterator[Page]:
    """Open the page from the menu's address, as a user who is logged in."""
    with browser(width, height, color_scheme=scheme, device_scale_factor=1) as context:
        context.add_cookies([{"name": "_token", "value": airflow.token(who), "url": airflow.url}])
        page = context.new_page()
        page.goto(f"{airflow.url}/plugin/ai-gateway-credits")
        expect(page.get_by_role("heading", name="AI Gateway credits")).to_be_visible()
        yield page


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accounts_are_shown_the_worst_first(airflow: Airflow, scheme: str) -> None:
    with visited(airflow, "op", height=1170, scheme=scheme) as page:
        expect(page.locator(".cfbilling h2")).to_have_text(["research", "support_bot", "cfbilling_default"])
        expect(page.get_by_text("card_declined")).to_be_visible()
        background = page.evaluate(
            "getComputedStyle(document.querySelector('.cfbilling section')).background"
        )
        assert ("rgb(255, 255, 255)" in background) == (scheme == "light")
        age = page.get_by_text(re.compile(r"Read \d+ s ago")).first
        expect(age).not_to_have_text(age.inner_text())
        keep_screenshot(page, f"credits-page-{scheme}")


@needs_chromium
def test_narrow_window_cuts_nothing_off(airflow: Airflow) -> None:
    with visited(airflow, "op", width=480) as page:
        expect(page.get_by_text("card_declined")).to_be_visible()
        widths = page.evaluate(
            "[...document.querySelectorAll('.cfbilling section')].map(e => [e.scrollWidth, e.clientWidth])"
        )
        assert all(scrolled <= client + 1 for scrolled, client in widths)
        keep_screenshot(page, "credits-page-narrow", only_for_review=True)


@needs_chromium
def test_charge_opens_its_dag_run_without_a_reload(airflow: Airflow) -> None:
    with visited(airflow, "op") as page:
        page.evaluate("window.notReloaded = true")
        page.get_by_role("link", name=f"{DAG_ID}, run").click()
        page.wait_for_url(f"**/airflow/dags/{DAG_ID}/runs/run**")
        assert page.evaluate("window.notReloaded")


@needs_chromium
def test_page_is_in_the_menu(airflow: Airflow) -> None:
    with visited(airflow, "op") as page:
        page.goto(airflow.url)
        page.get_by_role("button", name="Browse").click()
        page.get_by_role("menuitem", name="AI Gateway credits").click()
        expect(page.locator(".cfbilling h2").first).to_be_visible()


@needs_chromium
def test_viewer_without_rights_reads_why(airflow: Airflow) -> None:
    with visited(airflow, "viewer") as page:
        expect(page.get_by_role("status").filter(has_text="You may not read connections")).to_be_visible()
        expect(page.locator(".cfbilling")).to_have_count(0)
        keep_screenshot(page, "credits-page-viewer", only_for_review=True)


@needs_chromium
def test_page_that_is_renewed_keeps_what_it_has(airflow: Airflow, running_sandbox: Sandbox) -> None:
    """Cloudflare says nothing; then Airflow is away; then the session has ended."""
    with visited(airflow, "op") as page:
        expect(page.locator(".cfbilling h2")).to_have_count(3)
        running_sandbox.fault("*", "hang", times=None)
        while not page.get_by_text("What is shown was read before").first.is_visible():
            renewed(page)  # what was read is shared for a minute
            page.wait_for_timeout(1000)
        expect(page.get_by_text("$56.20")).to_be_visible()
        keep_screenshot(page, "credits-page-cloudflare-away", only_for_review=True)
        running_sandbox.clear_faults()
        page.route("**/cfbilling/fragment", lambda route: route.abort())
        renewed(page)
        expect(page.get_by_text("Airflow cannot be reached")).to_be_visible()
        expect(page.locator(".cfbilling h2")).to_have_count(3)
        page.unroute("**/cfbilling/fragment")
        page.context.clear_cookies()
        renewed(page)
        expect(page.get_by_text("Your session has ended")).to_be_visible()
        expect(page.locator(".cfbilling")).to_have_count(0)


def renewed(page: Page) -> None:
    """Come back to the tab: it reads again at once."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@needs_chromium
def test_airflow_without_a_connection_says_what_to_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = users(tmp_path_factory.mktemp("empty"), {"admin": "admin"})
    with (
        Airflow(DAG, [DAG_ID], environment, WITH_UI, user="admin") as airflow,
        visited(airflow, "admin") as page,
    ):
        expect(page.get_by_text("Add one under Admin, Connections")).to_be_visible()
        keep_screenshot(page, "credits-page-empty", only_for_review=True)
