"""What a task does in each state it can find its journal in, and whatever becomes of its charge."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingPaymentDeclinedError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.charging.errors import (
    BalanceAboveThreshold,
    ChargeUnconfirmedError,
    ManualReviewRequiredError,
    NotChargedError,
    PaymentFailedError,
    RecordError,
    StillPendingError,
)
from airflow_provider_cfbilling.charging.journal import Record
from airflow_provider_cfbilling.charging.progress import Progress
from airflow_provider_cfbilling.charging.protocol import MAX_INTENTS, SEND_WITHIN_SECONDS
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import AMOUNT_CENTS, ANOTHER_ACCOUNT, Task, task_in

# Kinds of fault that leave whether the card was charged unknown.
LOST: list[dict[str, Any]] = [
    {"kind": "reset"},
    {"kind": "drop"},
    {"kind": "status", "status": 502, "html": True},
    {"kind": "redirect"},
    {"kind": "truncate"},
    {"kind": "garbage"},
]


@pytest.fixture
def task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    with task_in(sandbox, monkeypatch) as task:
        yield task


@pytest.fixture(params=[False, True], ids=["waits", "is deferred"])
def any_task(task: Task, request: pytest.FixtureRequest) -> Task:
    """A task that waits in its process, and one that is deferred."""
    task.deferrable = request.param
    return task


def lose(sandbox: Sandbox, when: str = "before", **fault: Any) -> None:
    """Lose the response to the next charge, ``before`` or ``after`` it is made."""
    sandbox.fault("createTopup", **{"kind": "reset", "when": when} | fault)


def is_intent(progress: Progress) -> bool:
    return progress.record.state == "intent"


def is_accepted(progress: Progress) -> bool:
    return progress.record.state == "accepted"


def killed_after_the_charge(task: Task, *, charged: bool = False) -> None:
    """Run a try that is killed when the response to its charge is lost."""
    lose(task.sandbox, "after" if charged else "before")
    task.run(until=is_intent)


def history_reads(task: Task) -> int:
    return len(task.sandbox.requests("getInvoiceHistory"))


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
    assert record.intent == record.first_intent
    assert record.intent is not None
    assert (record.intent.account_id, record.intent.amount_cents) == (sandbox.account_id, AMOUNT_CENTS)
    assert record.intent.known_invoices == (known,)
    assert task.time.now - 10 < record.intent.at <= task.time.now
    assert record.charge_requests == 1


@pytest.mark.parametrize("wait_seconds", [None, 3600.0])
def test_completed_top_up_is_returned_without_any_request(
    sandbox: Sandbox, task: Task, wait_seconds: float | None
):
    first = task.run()
    requests = sandbox.requests()
    assert task.run(wait_seconds=wait_seconds) == {**first, "outcome": "already_completed"}
    assert sandbox.requests() == requests


def test_submitted_top_up_that_is_not_waited_for_is_returned_as_recorded(sandbox: Sandbox, task: Task):
    first = task.run(wait_seconds=None)
    assert (first["status"], first["outcome"]) == ("pending", "charged")
    requests = sandbox.requests()
    assert task.run(wait_seconds=None) == {**first, "outcome": "resumed"}
    assert sandbox.requests() == requests


def test_submitted_top_up_is_waited_for_and_not_charged_again(any_task: Task):
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


def test_guard_that_says_no_leaves_nothing_but_the_start_behind(sandbox: Sandbox, task: Task):
    sandbox.configure(balance_cents=500)
    with pytest.raises(BalanceAboveThreshold):
        task.run(only_if_balance_below_cents=500)
    assert task.kept.states == ["started"]
    sandbox.configure(balance_cents=499)
    assert task.run(only_if_balance_below_cents=500)["payment_intent_id"] == task.charged()


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_try_that_finds_an_intent_looks_before_it_charges(any_task: Task, charged: bool):
    killed_after_the_charge(any_task, charged=charged)
    result = any_task.run()
    assert result["payment_intent_id"] == any_task.charged()
    assert result["outcome"] == ("adopted" if charged else "charged")
    assert any_task.posts() == (1 if charged else 2)


@pytest.mark.parametrize(
    ("later", "looks_at_least", "looks_at_most"), [(0, 18, 21), (400, 5, 8), (700, 0, 1)]
)
def test_window_counts_from_the_intent(any_task: Task, later: float, looks_at_least: int, looks_at_most: int):
    killed_after_the_charge(any_task)
    any_task.sandbox.configure(settle_seconds=0)
    any_task.passes(later)
    any_task.run(wait_seconds=None)
    assert looks_at_least <= any_task.looks <= looks_at_most
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


def test_slow_answer_of_the_history_does_not_shorten_the_window(
    sandbox: Sandbox, any_task: Task, monkeypatch: pytest.MonkeyPatch
):
    """An intent bears the time of that answer, which may be long past when the charge is sent."""
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


def test_charge_that_comes_to_light_at_the_end_of_the_window_is_adopted(sandbox: Sandbox, any_task: Task):
    sandbox.configure(history_lag_seconds=595)
    killed_after_the_charge(any_task, charged=True)
    any_task.passes(300)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")
    assert any_task.posts() == 1


def not_charged(task: Task) -> None:
    """Run a try whose charge is lost twice, and not made."""
    lose(task.sandbox, times=2)
    with pytest.raises(
        NotChargedError,
        match=r"Two charge requests got no response and produced no invoice\. Nothing was charged",
    ):
        task.run()


def test_not_charged_keeps_the_first_intent_and_counts_what_was_sent(sandbox: Sandbox, any_task: Task):
    known = sandbox.add_invoice(AMOUNT_CENTS).id
    not_charged(any_task)
    intents = [record.intent for record in any_task.kept.history if record.state == "intent"]
    record = any_task.kept.record
    assert (record.state, record.charge_requests) == ("not_charged", 2)
    assert record.first_intent == intents[0] != intents[1] == record.intent
    assert record.first_intent is not None
    assert record.first_intent.known_invoices == (known,)


def test_charge_that_comes_to_light_late_is_adopted_before_any_check(sandbox: Sandbox, task: Task):
    not_charged(task)
    late = sandbox.add_invoice(AMOUNT_CENTS).id
    sandbox.configure(min_cents=50_000, default_payment_method=None, balance_cents=9999)
    result = task.run(only_if_balance_below_cents=1)
    assert (result["payment_intent_id"], result["outcome"]) == (late, "adopted")
    assert task.posts() == 2
    assert len(sandbox.requests("getTopupEligibility")) == 2  # those of the first try


def test_charge_that_comes_to_light_while_the_checks_are_made_is_adopted(
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


def test_second_lost_charge_is_looked_for_among_newer_invoices_only(sandbox: Sandbox, task: Task):
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
    assert 18 <= forgetful_task.looks <= 22


@pytest.mark.parametrize("ahead", [3600.0, -3600.0], ids=["ahead", "behind"])
def test_begin_of_the_dag_run_is_told_by_the_clock_of_cloudflare(sandbox: Sandbox, task: Task, ahead: float):
    task.cleared = True
    task.time.skew = ahead
    task.began_at = task.time.time() - 60
    before = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now - 7200).id
    lost = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now - 30).id
    result = task.run(wait_seconds=None)
    assert result["payment_intent_id"] == lost != before
    assert task.posts() == 0


def test_worker_whose_clock_is_behind_does_not_overlook_the_charge_of_an_earlier_try(
    sandbox: Sandbox, task: Task
):
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
        with pytest.raises(CfBillingUnavailableError):  # told to the trigger, which looks again
            forgetful_task.run()
        forgetful_task.sandbox.clear_faults()
    assert forgetful_task.run()["payment_intent_id"] == lost


def test_cloudflare_being_away_for_longer_than_the_window_ends_a_try_that_knows_nothing(
    sandbox: Sandbox, task: Task
):
    task.cleared = True
    sandbox.fault("getInvoiceHistory", "status", status=503, times=None)
    with pytest.raises(ChargeUnconfirmedError, match="Whether an earlier try charged the card is not known"):
        task.run()
    assert task.posts() == 0


# reconciling


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: fault["kind"])
def test_lost_answer_is_adopted_not_charged_again(sandbox: Sandbox, any_task: Task, fault: dict[str, Any]):
    sandbox.configure(history_lag_seconds=100)
    lose(sandbox, "after", **fault)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "adopted")
    assert (result["status"], result["amount_cents"]) == ("completed", AMOUNT_CENTS)
    assert any_task.kept.states == ["started", "intent", "accepted", "completed"]
    assert any_task.posts() == 1


@pytest.mark.parametrize("fault", LOST[:4], ids=lambda fault: fault["kind"])
def test_charge_that_was_not_made_is_made_once_that_is_proven(
    sandbox: Sandbox, any_task: Task, fault: dict[str, Any]
):
    lose(sandbox, **fault)
    result = any_task.run()
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "charged")
    states = ["started", "intent", "not_charged", "intent", "accepted", "completed"]
    assert any_task.kept.states == states
    assert any_task.posts() == 2


def test_try_charges_anew_once_and_the_next_one_goes_on(any_task: Task):
    not_charged(any_task)
    assert any_task.posts() == 2
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 3


@pytest.mark.parametrize(
    ("due_cents", "is_ours"),
    [(2500, True), (2975, True), (3175, True), (3375, True), (3376, False), (5000, False)],
)
def test_invoice_is_ours_from_the_amount_asked_for_up_to_the_highest_tax(
    sandbox: Sandbox, any_task: Task, due_cents: int, is_ours: bool
):
    killed_after_the_charge(any_task)
    seen = sandbox.add_invoice(2500, amount_due_cents=due_cents).id
    result = any_task.run()
    assert (result["payment_intent_id"] == seen) is is_ours
    assert result["amount_cents"] == AMOUNT_CENTS
    assert len(sandbox.charges()) == (0 if is_ours else 1)


@pytest.mark.parametrize("tax_percent", [7.7, 19, 27])
def test_charge_with_tax_is_adopted(sandbox: Sandbox, task: Task, tax_percent: float):
    sandbox.configure(tax_percent=tax_percent)
    lose(sandbox, "after")
    assert task.run()["payment_intent_id"] == task.charged()


def test_invoice_that_was_there_before_is_not_adopted(sandbox: Sandbox, any_task: Task):
    for _ in range(3):
        sandbox.add_invoice(AMOUNT_CENTS)
    lose(sandbox)
    assert any_task.run()["payment_intent_id"] == any_task.charged()


def test_automatic_top_up_is_not_adopted(sandbox: Sandbox, any_task: Task):
    killed_after_the_charge(any_task)
    automatic = sandbox.auto_topup("perform", amount_cents=AMOUNT_CENTS)
    assert automatic is not None
    assert any_task.run()["payment_intent_id"] != automatic.id


def test_two_invoices_that_can_be_ours_are_named_and_nothing_is_charged(sandbox: Sandbox, any_task: Task):
    killed_after_the_charge(any_task, charged=True)
    other = sandbox.add_invoice(AMOUNT_CENTS).id
    for _ in range(2):
        with pytest.raises(ManualReviewRequiredError) as caught:
            any_task.run()
        assert any_task.charged() in str(caught.value)
        assert other in str(caught.value)
        assert "dashboard" in str(caught.value)
        any_task.passes(3600)
    assert any_task.posts() == 1
    assert any_task.kept.record.state == "intent"


@pytest.mark.parametrize(
    ("account", "without"),
    [({"per_page": 2, "page_parameter": "ignored"}, ""), ({}, "id"), ({}, "created")],
    ids=["page is ignored", "no id", "no date"],
)
def test_history_that_may_hide_the_charge_proves_nothing(
    sandbox: Sandbox, any_task: Task, account: dict[str, Any], without: str
):
    killed_after_the_charge(any_task)
    sandbox.configure(**account)
    for _ in range(3):
        sandbox.add_invoice(9000, without=without)
    with pytest.raises(ManualReviewRequiredError, match="whether the card was charged cannot be determined"):
        any_task.run()
    assert any_task.looks >= 18  # it may yet come to light
    assert any_task.posts() == 1


def test_charge_is_found_on_a_later_page(sandbox: Sandbox, any_task: Task):
    sandbox.configure(per_page=2, page_parameter="honored")
    killed_after_the_charge(any_task, charged=True)
    for _ in range(7):
        sandbox.add_invoice(9000)
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert history_reads(any_task) >= 5


def test_all_pages_since_the_intent_are_proof_that_nothing_was_charged(sandbox: Sandbox, task: Task):
    sandbox.configure(per_page=2, page_parameter="honored")
    for _ in range(5):
        sandbox.add_invoice(AMOUNT_CENTS, created=task.began_at - 60)
    killed_after_the_charge(task)
    for _ in range(7):
        sandbox.add_invoice(9000)
    assert task.run()["payment_intent_id"] == task.charged()


def test_failed_looks_are_lived_with_while_the_window_is_open(sandbox: Sandbox, task: Task):
    killed_after_the_charge(task, charged=True)
    sandbox.fault("getInvoiceHistory", "status", status=503, times=7)
    sandbox.fault("getInvoiceHistory", "garbage", times=7)
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.looks >= 14


def test_failed_looks_end_the_try_with_the_window_and_the_next_try_finds_the_charge(
    sandbox: Sandbox, task: Task
):
    killed_after_the_charge(task, charged=True)
    sandbox.fault("getInvoiceHistory", "status", status=503, times=None)
    with pytest.raises(ChargeUnconfirmedError, match="may have been sent") as caught:
        task.run()
    assert caught.value.retryable
    assert 18 <= task.looks <= 22
    sandbox.clear_faults()
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.posts() == 1


@pytest.mark.parametrize(("more", "allowed"), [(0.0, False), (0.1, True)])
def test_window_must_be_longer_than_a_charge_may_be_under_way(
    sandbox: Sandbox, task: Task, more: float, allowed: bool
):
    window = SEND_WITHIN_SECONDS + task.client_of(sandbox.account_id).read_timeout + more
    if allowed:
        assert task.run(window_seconds=window)["outcome"] == "charged"
        return
    with pytest.raises(CfBillingInvalidRequestError, match="make the window longer, or read_timeout shorter"):
        task.run(window_seconds=window)
    assert sandbox.requests() == []


# the journal fails


def refuse(*states: str) -> Any:
    """Refuse to write these states down."""

    def before_write(record: Record) -> None:
        if record.state in states:
            raise OSError("the journal is away")

    return before_write


@pytest.mark.parametrize("state", ["started", "intent"])
def test_nothing_is_charged_where_it_could_not_be_written_down_before(task: Task, state: str):
    task.kept.before_write = refuse(state)
    with pytest.raises(RecordError, match="the journal is away"):
        task.run()
    assert task.posts() == 0
    task.kept.before_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()


def test_intent_of_which_it_is_not_known_whether_it_was_written_is_not_sent(task: Task):
    task.kept.after_write = refuse("intent")
    with pytest.raises(RecordError, match="the journal is away"):
        task.run()
    assert task.posts() == 0
    task.kept.after_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.posts() == 1


@pytest.mark.parametrize("states", [["accepted"], ["completed"], ["accepted", "completed"]], ids=str)
def test_failed_write_after_the_charge_changes_nothing_but_what_the_next_try_knows(
    any_task: Task, caplog: pytest.LogCaptureFixture, states: list[str]
):
    any_task.kept.before_write = refuse(*states)
    first = any_task.run()
    assert (first["payment_intent_id"], first["outcome"]) == (any_task.charged(), "charged")
    assert f"Could not record that the top-up is {states[0]}: OSError: the journal is away" in caplog.text
    any_task.kept.before_write = lambda _: None
    assert any_task.run()["payment_intent_id"] == any_task.charged()
    assert any_task.posts() == 1


def test_failed_write_of_not_charged_lets_the_next_try_look_again(sandbox: Sandbox, task: Task):
    sandbox.configure(topup_outcome="declined")
    task.kept.before_write = refuse("not_charged")
    with pytest.raises(CfBillingPaymentDeclinedError):
        task.run()
    sandbox.configure(topup_outcome="paid")
    task.kept.before_write = lambda _: None
    assert task.run()["payment_intent_id"] == task.charged()
    assert task.looks >= 18


@pytest.mark.parametrize("cleared", [False, True])
def test_superseded_try_reads_nothing_may_write_nothing_and_charges_nothing(task: Task, cleared: bool):
    """So does Airflow's store treat a try that another one has taken over from."""
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
def test_intent_that_became_too_old_is_written_anew(task: Task, times: int):
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


def test_process_that_was_frozen_before_its_charge_adopts_what_another_has_charged(
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
    assert task.run()["outcome"] == "adopted"
    assert task.posts() == 0


def test_try_that_was_frozen_while_it_compared_the_clocks_adopts_nothing_older_than_the_dag_run(
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


def test_intent_of_another_amount_is_adopted_and_reported_as_it_was_charged(any_task: Task):
    killed_after_the_charge(any_task, charged=True)
    result = any_task.run(amount_cents=9900)
    assert (result["payment_intent_id"], result["amount_cents"]) == (any_task.charged(), AMOUNT_CENTS)


def test_new_amount_is_charged_once_the_old_one_is_proven_not_to_be(task: Task):
    killed_after_the_charge(task)
    result = task.run(amount_cents=9900)
    assert (result["payment_intent_id"], result["amount_cents"]) == (task.charged(), 9900)


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "not charged"])
def test_charge_is_looked_for_in_the_account_where_it_was_sent(any_task: Task, charged: bool):
    killed_after_the_charge(any_task, charged=charged)
    any_task.sandbox.configure(ANOTHER_ACCOUNT, settle_seconds=0)
    result = any_task.run(account_id=ANOTHER_ACCOUNT)
    (charge,) = any_task.sandbox.charges()
    assert result["account_id"] == charge.account_id
    assert charge.account_id == (any_task.sandbox.account_id if charged else ANOTHER_ACCOUNT)
    assert result["payment_intent_id"] == charge.invoice_id


def test_charge_that_comes_to_light_late_is_adopted_from_the_account_where_it_was_sent(
    sandbox: Sandbox, task: Task
):
    not_charged(task)
    late = sandbox.add_invoice(AMOUNT_CENTS).id
    result = task.run(account_id=ANOTHER_ACCOUNT)
    assert (result["payment_intent_id"], result["account_id"]) == (late, sandbox.account_id)
    assert sandbox.charges() == []


# the wait


def test_wait_that_times_out_says_what_to_look_at_and_the_next_try_resumes_it(
    sandbox: Sandbox, any_task: Task
):
    sandbox.configure(settle_seconds=500)
    with pytest.raises(StillPendingError) as caught:
        any_task.run(wait_seconds=100)
    assert f"Top-up {any_task.charged()} is pending after 100 s" in str(caught.value)
    assert "The card may need 3-D Secure, or was declined" in str(caught.value)
    assert "AI Gateway page of the Cloudflare dashboard" in str(caught.value)
    assert any_task.looks <= 6
    result = any_task.run(wait_seconds=1000)
    assert (result["payment_intent_id"], result["outcome"]) == (any_task.charged(), "resumed")
    assert any_task.posts() == 1


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
@pytest.mark.parametrize("outcome", ["void", "uncollectible"])
def test_failed_payment_ends_every_try_and_is_not_charged_again(
    sandbox: Sandbox, any_task: Task, outcome: str, lost: bool
):
    sandbox.configure(topup_outcome=outcome)
    if lost:
        lose(sandbox, "after")
    for _ in range(2):
        with pytest.raises(PaymentFailedError, match=f"failed: its invoice is {outcome}"):
            any_task.run()
    assert any_task.posts() == 1


def test_recorded_top_up_that_is_not_found_is_named_and_not_charged_again(sandbox: Sandbox, task: Task):
    task.run(until=is_accepted)
    topup = {"payment_intent_id": "in_gone", "onboarding": None, "brand": None, "last4": None}
    task.kept.write(replace(task.kept.record, topup=topup))
    with pytest.raises(CfBillingNotFoundError, match="Cloudflare accepted top-up in_gone of 2500"):
        task.run()
    assert task.posts() == 1


def test_wait_outlives_a_cloudflare_that_is_away(sandbox: Sandbox, task: Task):
    sandbox.configure(settle_seconds=60)
    sandbox.fault("checkTopupStatus", "status", status=503, times=4)
    sandbox.fault("checkTopupStatus", "garbage")
    assert task.run()["outcome"] == "charged"
    assert task.looks >= 5


def test_wait_ends_at_once_where_the_credentials_are_refused(sandbox: Sandbox, task: Task):
    sandbox.configure(settle_seconds=600)
    task.run(until=is_accepted)
    sandbox.configure(token="another")
    with pytest.raises(CfBillingAuthenticationError):
        task.run()
    assert task.kept.record.state == "accepted"


# how it fails before a charge


@pytest.mark.parametrize(
    ("arrange", "error"),
    [
        ({"account": {"topup_outcome": "declined"}}, CfBillingPaymentDeclinedError),
        ({"fault": {"kind": "status", "status": 429}}, CfBillingRateLimitError),
        ({"fault": {"kind": "status", "status": 403}}, CfBillingError),
    ],
    ids=["declined", "rate limit", "forbidden"],
)
def test_refused_charge_is_proven_not_made_and_a_later_try_may_charge(
    sandbox: Sandbox, task: Task, arrange: dict[str, Any], error: type[CfBillingError]
):
    sandbox.configure(**arrange.get("account", {}))
    if "fault" in arrange:
        sandbox.fault("createTopup", **arrange["fault"])
    with pytest.raises(error, match="Nothing was charged"):
        task.run()
    assert task.kept.states == ["started", "intent", "not_charged"]
    assert (task.posts(), task.looks) == (1, 0)
    sandbox.configure(topup_outcome="paid")
    assert task.run()["payment_intent_id"] == task.charged()


def test_log_tells_what_was_done_and_whether_money_moved(
    sandbox: Sandbox, task: Task, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    lose(sandbox, "after")
    task.run()
    said = [record.getMessage() for record in caplog.records if record.name == task.log.name]
    assert said[0] == "All checks passed. Charging 2500 cents ($25.00)."
    assert said[1].startswith("The charge was sent and its response was lost: ")
    assert (
        said[2]
        == f"Top-up {task.charged()} is the charge whose response was lost: the card was charged once."
    )
    assert said[-1] == f"Top-up {task.charged()} is completed: the credits are there."
