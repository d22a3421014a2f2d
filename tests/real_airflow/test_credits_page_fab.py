"""Who sees the credits page with the auth manager of Flask-AppBuilder: `make test-fab` installs it."""

from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.raw_servers import fresh_token
from tests.real_airflow.deployment import WITH_UI, Airflow, an_airflow_can_run_here
from tests.real_airflow.test_credits_page import DAG, DAG_ID, fragment

pytest.importorskip("airflow.providers.fab", reason="make test-fab installs what this needs")
pytestmark = an_airflow_can_run_here(seconds=300)

# A role of one's own that may read connections, and no Dag.
CASHIER = "Cashier"
ROLES = {"viewer": "Viewer", "user": "User", "op": "Op", "admin": "Admin", "cashier": CASHIER}


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
        ("roles", "create", CASHIER),
        ("roles", "add-perms", CASHIER, "--resource", "Connections", "--action", "can_read"),
        *(user(name, role) for name, role in ROLES.items()),
    ]
    with Airflow(DAG, [DAG_ID], environment, WITH_UI, user="admin", commands=commands) as airflow:
        airflow.connect("support_bot", running_sandbox.connection_uri(token=token))
        airflow.trigger(DAG_ID)
        airflow.wait_until("the top-up is made", lambda: airflow.run_state(DAG_ID) == "success", 90)
        yield airflow


@pytest.mark.parametrize(
    ("who", "status", "sees_the_dag_run"),
    [
        (None, 401, False),
        ("garbage", 403, False),
        ("viewer", 403, False),
        ("user", 403, False),
        ("op", 200, True),
        ("admin", 200, True),
        ("cashier", 200, False),
    ],
)
def test_each_role_gets_what_it_may_see(
    airflow: Airflow, who: str | None, status: int, sees_the_dag_run: bool
) -> None:
    token = airflow.token(who) if who in ROLES else "garbage"
    response = fragment(airflow, **({"cookies": {"_token": token}} if who else {}))
    assert response.status_code == status
    assert ("support_bot" in response.text) == (status == 200)
    assert (DAG_ID in response.text) == sees_the_dag_run
    assert response.headers["Cache-Control"] == "no-store"
