"""A record that cannot be written or read, another one that has taken over, changed parameters."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingPaymentDeclinedError,
)
from airflow_provider_cfbilling.charging.endings import (
    NotChargedError,
    RecordError,
)
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.charging.protocol import MAX_INTENTS, SEND_WITHIN_SECONDS
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import (
    AMOUNT_CENTS,
    ANOTHER_ACCOUNT,
    Task,
    killed_after_the_charge,
    not_charged,
)

# the journal fails


def refuse(*states: str) -> Any:
    """Refuse to write these states down."""

    def before_write(record: Record) -> None:
        if record.state in states:
            raise OSError("the journal is away")

    return before_write


@pytest.mark.parametrize("state", ["started", "intent"])
def test_nothing_is_charged_if_it_cannot_be_recorded_first(task: Task, state: str):
    task.kept.before_write = refuse(state)
    with pytest.raises(RecordError, match="the journal is away"):
        task.run()
    assert task.posts() == 0
    task.kept.before_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()


def test_intent_whose_write_is_uncertain_is_not_sent(task: Task):
    task.kept.after_write = refuse("intent")
    with pytest.raises(RecordError, match="the journal is away"):
        task.run()
    assert task.posts() == 0
    task.kept.after_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.posts() == 1


@pytest.mark.parametrize("states", [["accepted"], ["completed"], ["accepted", "completed"]], ids=str)
def test_failed_write_after_the_charge_is_logged_and_not_charged_again(
    any_task: Task, caplog: pytest.LogCaptureFixture, states: list[str]
):
    any_task.kept.before_write = refuse(*states)
    first = any_task.run()
    assert (first["payment_intent_id"], first["outcome"]) == (any_task.charged(), "charged")
    assert f"Could not record that the top-up is {states[0]}: OSError: the journal is away" in caplog.text
    any_task.kept.before_write = lambda _: None
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 1


def test_failed_write_of_not_charged_makes_the_next_try_search_again(sandbox: Sandbox, task: Task):
    sandbox.configure(topup_outcome="declined")
    task.kept.before_write = refuse("not_charged")
    with pytest.raises(CfBillingPaymentDeclinedError):
        task.run()
    sandbox.configure(topup_outcome="paid")
    task.kept.before_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.polls >= 18


@pytest.mark.parametrize("cleared", [False, True])
def test_superseded_try_charges_nothing(task: Task, cleared: bool):
    """Airflow's store refuses every write of a try that another one has taken over from."""
    task.cleared = cleared
    task.kept.before_write = refuse("started", "intent", "accepted", "completed", "not_charged")
    with pytest.raises(RecordError, match="the journal is away"):
        task.run()
    assert task.posts() == 0


def freeze(task: Task, times: int) -> None:
    """Freeze the process between its next intents and their charges."""
    left = [times]

    def after_write(record: Record) -> None:
        if record.state == "intent" and left[0] > 0:
            left[0] -= 1
            task.passes(SEND_WITHIN_SECONDS + 1)

    task.kept.after_write = after_write


@pytest.mark.parametrize("times", range(1, MAX_INTENTS))
def test_expired_intent_is_written_again(task: Task, times: int):
    freeze(task, times)
    assert task.run()["outcome"] == "charged"
    assert task.kept.states == ["started", *["intent"] * (times + 1), "accepted", "completed"]
    assert task.posts() == 1


def test_machine_that_is_always_too_slow_charges_nothing(task: Task):
    freeze(task, MAX_INTENTS)
    with pytest.raises(
        NotChargedError, match=r"not ready within 5 s of being recorded\. Nothing was charged"
    ):
        task.run()
    assert task.kept.states == ["started", *["intent"] * MAX_INTENTS, "not_charged"]
    assert task.posts() == 0
    assert task.run()["payment_intent_id"] == task.charged()


def test_process_frozen_before_its_charge_takes_no_charge_of_another_run(
    sandbox: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
):
    client = task.client_of(sandbox.account_id)
    create_topup = client.create_topup

    def frozen(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(client, "create_topup", create_topup)
        task.passes(900)
        sandbox.add_invoice(AMOUNT_CENTS)
        return client.create_topup(*arguments, **options)

    monkeypatch.setattr(client, "create_topup", frozen)
    assert task.run()["payment_intent_id"] == task.charged()


def test_try_frozen_while_comparing_clocks_adopts_nothing_older(
    sandbox: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
):
    sandbox.add_invoice(AMOUNT_CENTS)
    task.passes(300)
    task.began_at = task.time.time()
    task.cleared = True
    client = task.client_of(sandbox.account_id)
    get_invoice_history = client.get_invoice_history

    def freezes(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(client, "get_invoice_history", get_invoice_history)
        history = get_invoice_history(*arguments, **options)
        task.passes(400)
        return history

    monkeypatch.setattr(client, "get_invoice_history", freezes)
    assert task.run()["payment_intent_id"] == task.charged()


# account or amount were changed between two tries


def test_intent_of_another_amount_is_reported_as_it_was_charged(any_task: Task):
    killed_after_the_charge(any_task, charged=True)
    result = any_task.run(amount_cents=9900)
    assert (result["payment_intent_id"], result["amount_cents"]) == (any_task.charged(), AMOUNT_CENTS)


def test_new_amount_is_charged_once_the_old_one_is_proven_not_to_be(task: Task):
    killed_after_the_charge(task)
    result = task.run(amount_cents=9900)
    assert (result["payment_intent_id"], result["amount_cents"]) == (task.charged(), 9900)


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_charge_is_searched_for_in_its_own_account(any_task: Task, charged: bool):
    killed_after_the_charge(any_task, charged=charged)
    any_task.sandbox.configure(ANOTHER_ACCOUNT, settle_seconds=0)
    result = any_task.run(account_id=ANOTHER_ACCOUNT)
    (charge,) = any_task.sandbox.charges()
    assert result["account_id"] == charge.account_id
    assert charge.account_id == (any_task.sandbox.account_id if charged else ANOTHER_ACCOUNT)
    assert result["payment_intent_id"] == charge.invoice_id


def test_late_charge_is_adopted_from_its_own_account(sandbox: Sandbox, task: Task):
    not_charged(task)
    late = sandbox.add_invoice(AMOUNT_CENTS).id
    result = task.run(account_id=ANOTHER_ACCOUNT)
    assert (result["payment_intent_id"], result["account_id"]) == (late, sandbox.account_id)
    assert sandbox.charges() == []
