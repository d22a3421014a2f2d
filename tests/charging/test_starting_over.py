"""What a try does in each state in which it can find its record."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.charging.endings import (
    ChargeUnconfirmedError,
    TopupNotNeeded,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import (
    AMOUNT_CENTS,
    Task,
    is_accepted,
    killed_after_the_charge,
    lose,
    not_charged,
)

# starting over


def test_first_try_writes_down_each_step_before_and_after_it_is_taken(any_task: Task):
    posts_when_written: dict[str, int] = {}
    any_task.kept.before_write = lambda record: posts_when_written.setdefault(record.state, any_task.posts())
    result = any_task.run()
    assert any_task.kept.states == ["started", "intent", "accepted", "completed"]
    assert posts_when_written == {"started": 0, "intent": 0, "accepted": 1, "completed": 1}
    assert result == {
        "payment_intent_id": any_task.charged(),
        "status": "completed",
        "amount_cents": AMOUNT_CENTS,
        "account_id": any_task.sandbox.account_id,
        "brand": "visa",
        "last4": "4242",
        "onboarding": True,
        "outcome": "charged",
    }


def test_intent_holds_what_is_needed_to_find_the_charge_again(sandbox: Sandbox, task: Task):
    task.passes(3600)  # Cloudflare's clock, not this machine's
    known = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now - 100).id
    sandbox.add_invoice(AMOUNT_CENTS, origin="auto")
    task.run(wait_seconds=None)
    record = task.kept.history[1]
    assert record.intent is not None
    assert record.lost_intent is None
    assert (record.intent.account_id, record.intent.amount_cents) == (sandbox.account_id, AMOUNT_CENTS)
    assert record.intent.known_invoices == (known,)
    assert task.time.now - 10 < record.intent.at <= task.time.now
    assert record.charge_requests == 1


@pytest.mark.parametrize("wait_seconds", [None, 3600.0])
def test_completed_topup_is_returned_without_any_request(
    sandbox: Sandbox, task: Task, wait_seconds: float | None
):
    first = task.run()
    requests = sandbox.requests()
    assert task.run(wait_seconds=wait_seconds) == {**first, "outcome": "already_completed"}
    assert sandbox.requests() == requests


def test_accepted_topup_is_returned_as_recorded(sandbox: Sandbox, task: Task):
    first = task.run(wait_seconds=None)
    assert (first["status"], first["outcome"]) == ("pending", "charged")
    requests = sandbox.requests()
    assert task.run(wait_seconds=None) == {**first, "outcome": "resumed"}
    assert sandbox.requests() == requests


def test_accepted_topup_is_waited_for_and_not_charged_again(any_task: Task):
    any_task.run(until=is_accepted)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "resumed")
    assert (result["brand"], result["last4"]) == ("visa", "4242")
    assert any_task.posts() == 1


def test_try_after_one_that_only_started_charges_at_once(sandbox: Sandbox, task: Task):
    sandbox.fault("getInvoiceHistory", "status", status=503)
    with pytest.raises(CfBillingUnavailableError, match="Nothing was charged"):
        task.run()
    assert task.kept.states == ["started"]
    assert task.run()["outcome"] == "charged"
    assert task.posts() == 1


def test_guard_that_refuses_leaves_only_the_start_behind(sandbox: Sandbox, task: Task):
    sandbox.configure(balance_cents=500)
    with pytest.raises(TopupNotNeeded):
        task.run(only_if_balance_below_cents=500)
    assert task.kept.states == ["started"]
    sandbox.configure(balance_cents=499)
    assert task.run(only_if_balance_below_cents=500)["payment_intent_id"] == task.charged()


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_try_that_finds_an_intent_searches_before_it_charges(any_task: Task, charged: bool):
    killed_after_the_charge(any_task, charged=charged)
    result = any_task.run()
    assert result["payment_intent_id"] == any_task.charged()
    assert result["outcome"] == ("adopted" if charged else "charged")
    assert any_task.posts() == (1 if charged else 2)


@pytest.mark.parametrize(("later", "min_polls", "max_polls"), [(0, 18, 21), (400, 5, 8), (700, 0, 1)])
def test_window_counts_from_the_intent(any_task: Task, later: float, min_polls: int, max_polls: int):
    killed_after_the_charge(any_task)
    any_task.sandbox.configure(settle_seconds=0)
    any_task.passes(later)
    any_task.run(wait_seconds=None)
    assert min_polls <= any_task.polls <= max_polls
    assert any_task.posts() == 2


def test_window_counts_from_the_end_of_an_attempt_that_this_try_made(
    task: Task, monkeypatch: pytest.MonkeyPatch
):
    lose(task.sandbox)
    create_topup = task.client_of(task.sandbox.account_id).create_topup

    def slow(*arguments: Any, **options: Any) -> Any:
        try:
            return create_topup(*arguments, **options)
        finally:
            task.passes(59)

    monkeypatch.setattr(task.client_of(task.sandbox.account_id), "create_topup", slow)
    ends: list[float | None] = []
    task.run(until=lambda progress: not ends.append(progress.reconcile_deadline))
    assert ends == [pytest.approx(task.time.now + 600, abs=3)]


def test_slow_history_response_does_not_shorten_the_window(
    sandbox: Sandbox, any_task: Task, monkeypatch: pytest.MonkeyPatch
):
    """An intent has the time of that response, which may be long past when the charge is sent."""
    client = any_task.client_of(sandbox.account_id)
    get_invoice_history = client.get_invoice_history

    def slow(*arguments: Any, **options: Any) -> Any:
        history = get_invoice_history(*arguments, **options)
        any_task.passes(50)
        return history

    sandbox.configure(history_lag_seconds=590)
    with monkeypatch.context() as patch:
        patch.setattr(client, "get_invoice_history", slow)
        killed_after_the_charge(any_task, charged=True)
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 1


def test_charge_that_appears_at_the_end_of_the_window_is_adopted(sandbox: Sandbox, any_task: Task):
    sandbox.configure(history_lag_seconds=595)
    killed_after_the_charge(any_task, charged=True)
    any_task.passes(300)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")
    assert any_task.posts() == 1


def test_not_charged_keeps_the_lost_intent_and_counts_what_was_sent(sandbox: Sandbox, any_task: Task):
    known = sandbox.add_invoice(AMOUNT_CENTS).id
    not_charged(any_task)
    intents = [record.intent for record in any_task.kept.history if record.state == "intent"]
    record = any_task.kept.record
    assert (record.state, record.charge_requests) == ("not_charged", 2)
    assert record.lost_intent == intents[0] != intents[1] == record.intent
    assert record.lost_intent is not None
    assert record.lost_intent.known_invoices == (known,)


def test_late_charge_is_adopted_before_any_check(sandbox: Sandbox, task: Task):
    not_charged(task)
    late = sandbox.add_invoice(AMOUNT_CENTS).id
    sandbox.configure(min_cents=50_000, default_payment_method=None, balance_cents=9999)
    result = task.run(only_if_balance_below_cents=1)
    assert (result["payment_intent_id"], result["outcome"]) == (late, "adopted")
    assert task.posts() == 2
    assert len(sandbox.requests("getTopupEligibility")) == 2  # those of the first try


def test_charge_that_appears_during_the_checks_is_adopted(
    sandbox: Sandbox, task: Task, monkeypatch: pytest.MonkeyPatch
):
    not_charged(task)
    client = task.client_of(sandbox.account_id)
    get_topup_limits = client.get_topup_limits

    def meanwhile() -> Any:
        sandbox.add_invoice(AMOUNT_CENTS)
        return get_topup_limits()

    monkeypatch.setattr(client, "get_topup_limits", meanwhile)
    assert task.run()["outcome"] == "adopted"
    assert task.posts() == 2


def test_second_lost_charge_is_searched_for_among_newer_invoices_only(sandbox: Sandbox, task: Task):
    not_charged(task)
    other = sandbox.add_invoice(AMOUNT_CENTS * 2).id
    lose(sandbox, "after")
    result = task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (task.charged(), "adopted")
    intent = task.kept.record.intent
    assert intent is not None
    assert intent.known_invoices == (other,)


# nothing is known of earlier tries


@pytest.fixture
def forgetful_task(any_task: Task) -> Task:
    """A task that was cleared, with the record of its first try."""
    any_task.cleared = True
    return any_task


def test_charge_made_since_the_dag_run_began_is_taken_for_an_earlier_try(forgetful_task: Task):
    task = forgetful_task
    task.sandbox.add_invoice(AMOUNT_CENTS, created=task.began_at - 60)
    lost = task.sandbox.add_invoice(AMOUNT_CENTS, created=task.began_at + 30).id
    task.passes(900)
    result = task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (lost, "adopted")
    assert task.posts() == 0


def test_window_counts_from_the_start_of_a_try_that_knows_nothing(forgetful_task: Task):
    forgetful_task.passes(3600)
    result = forgetful_task.run(wait_seconds=None)
    assert (result["payment_intent_id"], result["outcome"]) == (forgetful_task.charged(), "charged")
    assert 18 <= forgetful_task.polls <= 22


@pytest.mark.parametrize("ahead", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_start_of_the_dag_run_is_taken_by_the_clock_of_cloudflare(sandbox: Sandbox, task: Task, ahead: float):
    task.cleared = True
    task.time.skew = ahead
    task.began_at = task.time.time() - 60
    before = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now - 7200).id
    lost = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now - 30).id
    result = task.run(wait_seconds=None)
    assert result["payment_intent_id"] == lost != before
    assert task.posts() == 0


def test_worker_whose_clock_is_behind_finds_the_charge_of_an_earlier_try(sandbox: Sandbox, task: Task):
    lost = sandbox.add_invoice(AMOUNT_CENTS, created=task.began_at + 10).id
    task.passes(900)
    task.cleared = True
    task.time.skew = -60
    assert task.run(wait_seconds=None)["payment_intent_id"] == lost
    assert task.posts() == 0


def test_cloudflare_being_away_does_not_stop_a_try_that_knows_nothing(forgetful_task: Task):
    lost = forgetful_task.sandbox.add_invoice(AMOUNT_CENTS).id
    forgetful_task.sandbox.fault("getInvoiceHistory", "status", status=503, times=5)
    if forgetful_task.deferrable:
        with pytest.raises(CfBillingUnavailableError):  # reported to the trigger, which polls again
            forgetful_task.run()
        forgetful_task.sandbox.clear_faults()
    assert forgetful_task.run()["payment_intent_id"] == lost


def test_outage_longer_than_the_window_ends_a_try_without_record(sandbox: Sandbox, task: Task):
    task.cleared = True
    sandbox.fault("getInvoiceHistory", "status", status=503, times=None)
    with pytest.raises(ChargeUnconfirmedError, match="Whether an earlier try charged the card is not known"):
        task.run()
    assert task.posts() == 0
