"""After top-ups that went wrong in many ways, with the most talkative logs, no secret is found anywhere."""

from collections.abc import Collection
from contextlib import ExitStack
from urllib.parse import quote

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.auth import GLOBAL_API_KEY, GLOBAL_EMAIL
from tests.planted import encoded, forms_of
from tests.raw_servers import ACCOUNT_ID, Peer, RawServer, http, ok, refused
from tests.real_airflow.deployment import HAS_TASK_STATE_STORE, Airflow, an_airflow_can_run_here

pytestmark = an_airflow_can_run_here(seconds=300)

TIMEOUT = 120.0
TOKEN, WRONG_TOKEN = "planted+api/token=5f0c", "planted+wrong/token=91ab"
# Sent back by a server, wherever it can.
ECHOED_TOKEN, ECHOED_SECRET = "planted+echoed/token=77d3", "pi_3Nx8dE_secret_planted9KbQ2"
ECHO = " ".join([*encoded(ECHOED_TOKEN), ECHOED_SECRET])
# Planted where it is found, to show that it would be.
CANARY = "planted+canary/3c1e=e0"
# How a client_secret of the sandbox begins; it is in every response to a top-up.
CLIENT_SECRET = "seti_"
DAGS = """
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow_provider_cfbilling.operators.cfbilling import (
    CfBillingCreateTopupOperator,
    CfBillingGetCreditBalanceOperator,
)
from airflow_provider_cfbilling.sensors.cfbilling import (
    CfBillingCreditBalanceSensor,
    CfBillingTopupConfigErrorSensor,
)


class Canary(BaseOperator):
    template_fields = ("text",)

    def __init__(self, text, **kwargs):
        super().__init__(**kwargs)
        self.text = text

    def execute(self, context):
        self.log.info("%s", self.text)
        if "task_state_store" in context:
            context["task_state_store"].set("canary", self.text)
        return self.text


def dag(name):
    return DAG(name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))


# Amounts that cannot be taken for each other.
topup = dict(task_id="topup", poll_interval=0.5, unknown_outcome_window=12)
again = dict(retries=2, retry_delay=timedelta(seconds=1))
with dag("response_lost"):
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
with dag("echo_accepts"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="accepts", amount_cents=2500, **topup)
with dag("echo_refuses"):
    CfBillingCreateTopupOperator(cfbilling_conn_id="refuses", amount_cents=2500, **topup)
with dag("echo_garbles"):
    CfBillingGetCreditBalanceOperator(task_id="topup", cfbilling_conn_id="garbles")
with dag("echo_watched"):
    CfBillingTopupConfigErrorSensor(task_id="topup", cfbilling_conn_id="accepts", start_from_trigger=True)
with dag("still_deferred"):
    CfBillingCreateTopupOperator(
        cfbilling_conn_id="keeps_pending", amount_cents=2500, deferrable=True, **topup
    )
with dag("canary"):
    Canary(task_id="topup", text="CANARY")
"""
ENDS = {
    "response_lost": "success",
    "deferred": "success",
    "refused": "failed",
    "global_key": "success",
    "waits": "success",
    "malformed": "failed",
    "echo_accepts": "success",
    "echo_refuses": "failed",
    "echo_garbles": "failed",
    "echo_watched": "success",
    "canary": "success",
}


def echo(peer: Peer) -> None:
    """Send the credentials back in every field that is text, in headers, and in what is no header."""
    while True:
        peer.request()
        behaviour, endpoint = peer.path().split("/")[1], peer.path().partition("/billing/")[2]
        invoice = {"id": f"in_{behaviour}", "amount_due": 2500, "amount_paid": 0, "amount_remaining": 2500}
        invoice |= {"currency": ECHO, "status": ECHO, "description": ECHO, "invoice_pdf": f"https://x/{ECHO}"}
        limits = {"min_cents": 1000, "max_cents": 5000, "currency": ECHO}
        pages = {"has_more": False, "page": 1, "per_page": 20, "total_count": 1}
        results = {
            "credit-balance": {
                "balance": 100,
                "has_default_payment_method": True,
                "payment_method": {"brand": ECHO, "last4": ECHO},
                "topup_config": {"amount": 1, "threshold": 1, "error": ECHO, "disabledReason": ECHO},
            },
            "topup/eligibility": {"manual_topup": {"limits": limits, "reason": ECHO}},
            "topup": {
                "payment_intent_id": invoice["id"],
                "client_secret": ECHO,
                "brand": ECHO,
                "last4": ECHO,
            },
            "topup/status": {
                "payment_intent_id": invoice["id"],
                "status": "pending" if behaviour == "keeps_pending" else "completed",
            },
            "invoice-history?type=manual": {"invoices": [invoice | {"created": 1}], "pagination": pages},
        }
        response = http(ok(results[endpoint]), cf_ray=ECHO, Set_Cookie=ECHO)
        if behaviour == "refuses" and endpoint == "topup":
            response = http(refused(7103, ECHO), 402, cf_ray=ECHO)
        if behaviour == "garbles":
            response = f"HTTP/1.1 200 OK\r\nYour {ECHO}\r\n\r\n".encode()
        peer.send(response)


def places_of(places: dict[str, str], texts: Collection[str]) -> set[str]:
    return {place for place, kept in places.items() if any(text in kept for text in texts)}


def test_no_secret_is_left_in_logs_or_database(sandbox: Sandbox, stack: ExitStack) -> None:
    sandbox.configure(token=TOKEN)
    good = sandbox.connection_uri(token=TOKEN) + "?read_timeout=5"
    host, token = quote(sandbox.base_url, safe=""), quote(TOKEN, safe="")
    echoing = stack.enter_context(RawServer(echo))
    connections = {
        "good": good,
        "wrong": sandbox.connection_uri(token=WRONG_TOKEN),
        "global_key": f"cfbilling://{sandbox.account_id}:{GLOBAL_API_KEY}@{host}?email={quote(GLOBAL_EMAIL)}&read_timeout=5",
        "malformed": f"cfbilling://not-an-account:{token}@{host}",
    }
    for behaviour in ("accepts", "refuses", "garbles", "keeps_pending"):
        password, url = quote(ECHOED_TOKEN, safe=""), quote(f"{echoing.url}/{behaviour}", safe="")
        connections[behaviour] = f"cfbilling://{ACCOUNT_ID}:{password}@{url}?read_timeout=5&max_attempts=2"
    dags = DAGS.replace("CANARY", " ".join(forms_of(CANARY)))
    environment = {
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__LOGGING__MIN_LENGTH_MASKED_SECRET": "1000",  # its own masking must not hide what we show
    }
    airflow = stack.enter_context(Airflow(dags, {*ENDS, "still_deferred"}, environment))
    for conn_id, uri in connections.items():
        airflow.connect(conn_id, uri)
    for kind in ("reset", "truncate"):
        sandbox.fault("createTopup", kind, "after")
    sandbox.fault("getTopupEligibility", "garbage")
    for dag_id in ("still_deferred", *ENDS):
        airflow.trigger(dag_id)
    for dag_id, end in ENDS.items():
        airflow.wait_until(
            f"{dag_id} has ended", lambda dag_id=dag_id, end=end: airflow.run_state(dag_id) == end, TIMEOUT
        )
    assert len(sandbox.charges()) == 3
    airflow.wait_until("a task waits", lambda: airflow.task("still_deferred").state == "deferred", TIMEOUT)

    places = airflow.all_places()

    # What is searched holds what is there: an id, and a secret in each of its forms.
    found = places_of(places, ["in_keeps_pending"])
    assert {"xcom", *(["task_state_store"] if HAS_TASK_STATE_STORE else [])} <= found
    assert {"trigger", "trigger, decrypted"} & found
    for form in forms_of(CANARY):
        found = places_of(places, [form])
        assert {"xcom", "rendered_task_instance_fields", "serialized_dag"} <= found
        assert any(place.endswith(".log") for place in found)
    for secret in (TOKEN, WRONG_TOKEN, GLOBAL_API_KEY, ECHOED_TOKEN):
        assert places_of(places, forms_of(secret)) == {"connection, decrypted"}, secret
    for secret in (CLIENT_SECRET, ECHOED_SECRET):
        assert places_of(places, [secret]) == set(), secret
