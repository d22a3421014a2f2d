"""After top-ups that went wrong in many ways, with the most talkative logs, no secret is found anywhere."""

from contextlib import ExitStack
from urllib.parse import quote

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.access import GLOBAL_API_KEY, GLOBAL_EMAIL
from tests.real_airflow.deployment import Airflow, an_airflow_can_run_here

pytestmark = an_airflow_can_run_here(seconds=300)

TIMEOUT = 120.0
TOKEN, WRONG_TOKEN = "planted-api-token-5f0c", "planted-wrong-token-91ab"
# How a client_secret of the sandbox begins; it is in every answer to a top-up.
CLIENT_SECRET = "seti_"
DAGS = """
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingCreditBalanceSensor


def dag(name):
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


# Amounts that cannot be taken for each other.
topup = dict(task_id="topup", poll_interval=0.5, unknown_outcome_window=12)
again = dict(retries=2, retry_delay=timedelta(seconds=1))
with dag("answer_lost"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="good", amount_cents=1000, **topup, **again)
with dag("deferred"):
    CfBillingCreateTopupOperator(
        cfbilling_conn_id="good", amount_cents=2500, deferrable=True, **topup, **again
    )
with dag("refused"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="wrong", amount_cents=2500, **topup, **again)
with dag("global_key"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="global_key", amount_cents=5000, **topup, **again)
with dag("waits"):
    CfBillingCreditBalanceSensor(
        task_id="topup", cfbilling_conn_id="good", below_cents=900_000, start_from_trigger=True
    )
with dag("malformed"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="malformed", amount_cents=2500, **topup)
"""
ENDS = {
    "answer_lost": "success",
    "deferred": "success",
    "refused": "failed",
    "global_key": "success",
    "waits": "success",
    "malformed": "failed",
}


def test_no_secret_is_left_in_logs_or_database(sandbox: Sandbox, stack: ExitStack) -> None:
    sandbox.configure(token=TOKEN)
    good = sandbox.connection_uri(token=TOKEN) + "?read_timeout=5"
    host = quote(sandbox.base_url, safe="")
    connections = {
        "good": good,
        "wrong": sandbox.connection_uri(token=WRONG_TOKEN),
        "global_key": f"cfbilling://{sandbox.account_id}:{GLOBAL_API_KEY}@{host}?email={quote(GLOBAL_EMAIL)}&read_timeout=5",
        "malformed": f"cfbilling://not-an-account:{TOKEN}@{host}",
    }
    airflow = stack.enter_context(Airflow(DAGS, ENDS, {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}))
    for conn_id, uri in connections.items():
        airflow.connect(conn_id, uri)
    for kind in ("reset", "truncate"):
        sandbox.fault("createTopup", kind, "after")
    sandbox.fault("getTopupLimits", "garbage")
    for dag_id in ENDS:
        airflow.trigger(dag_id)
    for dag_id, end in ENDS.items():
        airflow.wait_until(
            f"{dag_id} has ended", lambda dag_id=dag_id, end=end: airflow.run_state(dag_id) == end, TIMEOUT
        )
    assert len(sandbox.charges()) == 3

    # What is searched holds what is there: the id is in the XComs and in the task's log.
    places = airflow.places_of(sandbox.charges()[0].invoice_id)
    assert "xcom" in places
    assert any(place.endswith(".log") for place in places)
    for secret in (TOKEN, WRONG_TOKEN, GLOBAL_API_KEY, CLIENT_SECRET):
        assert airflow.places_of(secret) == [], secret
