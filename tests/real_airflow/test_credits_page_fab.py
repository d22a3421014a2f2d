"""Who sees the credits page with the auth manager of Flask-AppBuilder: `make test-fab` installs it."""

import re
from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import AIRFLOW_VERSION, WITH_UI, Airflow, an_airflow_can_run_here
from tests.real_airflow.test_credits_page import DAG, DAG_ID, credentials, fragment

pytest.importorskip("airflow.providers.fab", reason="make test-fab installs what this needs")
pytestmark = [
    *an_airflow_can_run_here(seconds=300),
    pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the credits page needs Airflow 3.1"),
]

# Roles of one's own that may read connections: one of them no Dag, the other one of two.
CASHIER, CLERK = "Cashier", "Clerk"
ROLES = {
    "public": "Public",
    "viewer": "Viewer",
    "user": "User",
    "op": "Op",
    "admin": "Admin",
    "cashier": CASHIER,
    "clerk": CLERK,
}
OPEN_DAG_ID = "open_topup"
OPEN_DAG = DAG.replace(DAG_ID, OPEN_DAG_ID).replace(
    "schedule=None", f"schedule=None, access_control={{'{CLERK}': {{'DAGs': {{'can_read'}}}}}}"
)
DAG_IDS = {DAG_ID, OPEN_DAG_ID}


def user(name: str, role: str) -> tuple[str, ...]:
    """Return the command that adds a user, with the name as password."""
    names = ("--username", name, "--firstname", name, "--lastname", name, "--email", f"{name}@example.com")
    return ("users", "create", "--role", role, "--password", name, *names)


@pytest.fixture(scope="module")
def airflow(running_sandbox: Sandbox) -> Iterator[Airflow]:
    running_sandbox.reset()
    token = fresh_token()
    running_sandbox.configure(token=token, settle_seconds=0)
    environment = {
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    }
    commands = [
        ("sync-perm",),
        ("roles", "create", CASHIER, CLERK),
        ("roles", "add-perms", CASHIER, CLERK, "--resource", "Connections", "--action", "can_read"),
        *(user(name, role) for name, role in ROLES.items()),
    ]
    with Airflow(DAG + OPEN_DAG, DAG_IDS, environment, WITH_UI, user="admin", commands=commands) as airflow:
        airflow.connect("support_bot", running_sandbox.connection_uri(token=token))
        for dag_id in DAG_IDS:
            airflow.trigger(dag_id)
        airflow.wait_until(
            "the top-ups are made",
            lambda: {airflow.run_state(dag_id) for dag_id in DAG_IDS} == {"success"},
            90,
        )
        yield airflow


@pytest.mark.parametrize("how", ["bearer", "cookie"])
@pytest.mark.parametrize(
    ("who", "status", "linked"),
    [
        (None, 401, set()),
        ("garbage", 403, set()),
        ("public", 403, set()),
        ("viewer", 403, set()),
        ("user", 403, set()),
        ("op", 200, DAG_IDS),
        ("admin", 200, DAG_IDS),
        ("cashier", 200, set()),
        ("clerk", 200, {OPEN_DAG_ID}),
    ],
)
def test_each_role_gets_what_it_may_see(
    airflow: Airflow, who: str | None, status: int, linked: set[str], how: str
) -> None:
    token = airflow.token(who) if who in ROLES else "garbage"
    response = fragment(airflow, **(credentials(token, how) if who else {}))
    assert response.status_code == status
    assert ("support_bot" in response.text) == (status == 200)
    assert set(re.findall('data-route="/dags/([^/]+)/', response.text)) == linked
    assert all((dag_id in response.text) == (dag_id in linked) for dag_id in DAG_IDS)
    assert response.headers["Cache-Control"] == "no-store"
