"""What Airflow stores of deferred tasks and of watchers, written out.

A trigger of an older version of this package is revived by a newer one, and an event of it is read by a newer
one. Changing what stands here needs a migration: accept the older form too.
"""

import json
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers.cfbilling import (
    CfBillingCreditBalanceTrigger,
    CfBillingLowBalanceEventTrigger,
    CfBillingLowRunwayEventTrigger,
    CfBillingRunwayTrigger,
    CfBillingTopupCompletedTrigger,
    CfBillingTopupConfigErrorEventTrigger,
    CfBillingTopupConfigErrorTrigger,
    CfBillingTopupTrigger,
)
from tests.triggers.firing import fire
from tests.triggers.test_events import HAS_ASSET_WATCHER

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
PATH = "airflow_provider_cfbilling.triggers.cfbilling."
COMMON = '"cfbilling_conn_id": "c", "account_id": "0123456789abcdef0123456789abcdef", "poll_interval": 60'
INTENT = ChargeIntent(ACCOUNT_ID, 2500, 1.0, 2.0)
SEARCHING = Progress(Record("intent", INTENT, INTENT), "reconcile")

STORED = [
    (
        CfBillingTopupConfigErrorTrigger("c", ACCOUNT_ID, 60, "error", "2026-01-31T00:00:00+00:00", True),
        f'{{{COMMON}, "ends_task": true, "wait_for": "error", "since": "2026-01-31T00:00:00+00:00"}}',
    ),
    (
        CfBillingCreditBalanceTrigger("c", ACCOUNT_ID, 60, 2000, None),
        f'{{{COMMON}, "ends_task": false, "below_cents": 2000, "at_least_cents": null}}',
    ),
    (
        CfBillingRunwayTrigger("c", ACCOUNT_ID, 60, 5),
        f'{{{COMMON}, "ends_task": false, "below_days": 5}}',
    ),
    (
        CfBillingTopupCompletedTrigger("c", ACCOUNT_ID, 60, "in_1"),
        f'{{{COMMON}, "ends_task": false, "payment_intent_id": "in_1"}}',
    ),
    (
        CfBillingTopupTrigger("c", ACCOUNT_ID, 60, SEARCHING.to_json()),
        f'{{{COMMON}, "progress": {json.dumps(SEARCHING.to_json())}}}',
    ),
]
if HAS_ASSET_WATCHER:
    STORED += [
        (CfBillingTopupConfigErrorEventTrigger("c", ACCOUNT_ID, 60), f"{{{COMMON}}}"),
        (
            CfBillingLowBalanceEventTrigger(2000, "c", ACCOUNT_ID, 60),
            f'{{{COMMON}, "below_cents": 2000}}',
        ),
        (CfBillingLowRunwayEventTrigger(5, "c", ACCOUNT_ID, 60), f'{{{COMMON}, "below_days": 5}}'),
    ]


@pytest.mark.parametrize(("trigger", "stored"), STORED, ids=lambda value: type(value).__name__)
def test_trigger_is_stored_as_it_always_was(trigger: BaseTrigger, stored: str) -> None:
    path, arguments = trigger.serialize()
    assert path == PATH + type(trigger).__name__
    assert json.dumps(arguments) == stored
    assert type(trigger)(**json.loads(stored)).serialize() == (path, arguments)


def sent(trigger: BaseTrigger) -> Any:
    """Return the payload that a trigger's event carries to its task."""
    (event,) = fire(trigger)
    return json.loads(json.dumps(event.payload))


def test_events_carry_what_they_always_did(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the sensors and the operator read: ``execute_complete``."""
    conn_id = "cfbilling_default"
    sandbox.configure(balance_cents=1500)
    success = sent(CfBillingCreditBalanceTrigger(conn_id, None, 60, 2000, None))
    assert sorted(success) == ["result", "status"]
    assert success["status"] == "success"
    assert success["result"]["balance_cents"] == 1500
    assert sent(CfBillingCreditBalanceTrigger(conn_id, None, 60, None, None)) == {
        "status": "failed",
        "message": "Give either below_cents or at_least_cents.",
        "retry": False,
    }
    skipped = sent(CfBillingTopupCompletedTrigger(conn_id, None, 60, "None"))
    assert (skipped["status"], sorted(skipped)) == ("skipped", ["message", "status"])
    monkeypatch.delenv("AIRFLOW_CONN_CFBILLING_DEFAULT")
    error = sent(CfBillingCreditBalanceTrigger(conn_id, None, 60, 2000, None))
    assert (error["status"], sorted(error)) == ("trigger_error", ["message", "status"])
    resume = sent(CfBillingTopupTrigger(conn_id, None, 0.1, SEARCHING.to_json()))
    assert (resume["status"], sorted(resume)) == ("resume", ["progress", "status", "trigger_error"])
    assert resume["progress"] == SEARCHING.to_json()
