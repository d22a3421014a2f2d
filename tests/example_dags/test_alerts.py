"""The example Dags that send mail, each run by Airflow in front of a real SMTP server."""

import threading
import time
from typing import Any

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import DagFolder
from tests.example_dags.test_example_dags import IMPATIENT, run
from tests.mailbox import Mailbox


def test_low_runway_is_mailed(sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox) -> None:
    sandbox.configure(balance_cents=712.5, spend_per_day_cents=324)
    alert = run(dag_folder, "alert_on_low_runway")
    assert alert.tasks == {"less_than_five_days": "success", "send": "success"}
    to, subject, text = mailbox.only()
    assert (to, subject) == ("oncall@example.com", "AI Gateway credits: 2.2 days left")
    assert "$7.12 are left. At $3.24 a day they end on 20" in text
    assert "What to do: check on the page AI Gateway credits" in text


def test_days_enough_are_not_mailed(sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox) -> None:
    sandbox.configure(balance_cents=7125, spend_per_day_cents=324)
    alert = run(dag_folder, "alert_on_low_runway", IMPATIENT)
    assert alert.tasks["less_than_five_days"] == "failed"  # its patience, a year in the file, has ended
    assert mailbox.messages == []


@pytest.mark.parametrize(
    ("action", "state", "why"),
    [("break", "failing", "card_declined"), ("disable", "disabled", "too_many_failures")],
)
def test_broken_auto_topup_is_mailed(
    sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox, action: Any, state: str, why: str
) -> None:
    sandbox.auto_topup(action, last_failed_at=time.time() - 3600)
    alert = run(dag_folder, "alert_on_broken_auto_topup")
    assert alert.tasks == {"auto_topup_is_broken": "success", "send": "success"}
    to, subject, text = mailbox.only()
    assert (to, subject) == (
        "oncall@example.com",
        f"The automatic top-up of AI Gateway credits is {state}",
    )
    assert f"Cloudflare says: {why}." in text
    assert "What to do: open the AI Gateway page" in text


def test_declined_topup_is_mailed(sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox) -> None:
    sandbox.configure(topup_outcome="declined")
    assert run(dag_folder, "topup_with_alerts").state == "failed"
    to, subject, text = mailbox.all()[0]  # on some Airflows `dag.test()` runs the Dag's callback too
    assert to == "oncall@example.com"
    assert "The top-up of AI Gateway credits has failed: cfbilling_topup_with_alerts" in subject
    assert "declined" in text
    assert "Nothing was charged" in text


def test_topup_that_needs_a_person_is_mailed(
    sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its response is lost, and meanwhile another user buys the same: which invoice is whose is not shown."""
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?read_timeout=3")
    sandbox.fault("createTopup", "hang", "after")

    def buy() -> None:
        while not sandbox.charges():
            time.sleep(0.02)
        sandbox.add_invoice(2500)

    buyer = threading.Thread(target=buy)
    buyer.start()
    assert run(dag_folder, "topup_with_alerts").state == "failed"
    buyer.join()
    (charge,) = sandbox.charges()
    _, _, text = mailbox.all()[0]
    assert charge.invoice_id in text
    assert "review the invoices" in text
    assert "if one of them is this top-up's, mark the task as success" in text
    assert all(sandbox.token not in text for _, _, text in mailbox.all())


def test_topup_that_succeeds_mails_nothing(sandbox: Sandbox, dag_folder: DagFolder, mailbox: Mailbox) -> None:
    sandbox.configure(settle_seconds=0)  # the first poll finds it done, and the next one is 30 seconds away
    assert run(dag_folder, "topup_with_alerts").state == "success"
    assert mailbox.messages == []
