"""CfBillingCreateTopupOperator in real Dag runs, against a real HTTP server that keeps the books."""

import re
from datetime import UTC, datetime
from importlib.metadata import version

import pytest

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import READ_TOKEN
from tests.airflow_runs import DagFolder, Run

ANOTHER_ACCOUNT = "f" * 32


def topup(dag_folder: DagFolder, **arguments: object) -> Run:
    """Run a Dag with one top-up that would be retried at once, twice, if Airflow were allowed to."""
    given = {"amount_cents": 2500, "poll_interval": 0.1, "timeout": 10.0, "retries": 2} | arguments
    written = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return dag_folder.run(f"CfBillingCreateTopupOperator(task_id='task', retry_delay=0.01, {written})")


def posted(sandbox: Sandbox) -> int:
    return len(sandbox.requests("createTopup"))


def test_topup_is_charged_once_and_waited_for(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = topup(dag_folder)
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result() == {
        "payment_intent_id": charge.invoice_id,
        "status": "completed",
        "amount_cents": 2500,
        "account_id": sandbox.account_id,
        "brand": "visa",
        "last4": "4242",
        "onboarding": True,
        "outcome": "charged",
    }
    assert (charge.amount_cents, charge.status) == (2500, "paid")


def test_id_is_pushed_before_the_wait(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(topup_outcome="requires_action")
    run = topup(dag_folder, timeout=0.3, retries=0)
    (charge,) = sandbox.charges()
    assert run.state == "failed"
    assert run.xcoms["task", "payment_intent_id"] == charge.invoice_id


@pytest.mark.parametrize("deferrable", [False, True])
def test_invoice_is_pushed_once_it_was_seen(
    sandbox: Sandbox, dag_folder: DagFolder, deferrable: bool
) -> None:
    sandbox.configure(settle_seconds=1.5)
    run = topup(dag_folder, deferrable=deferrable)
    (charge,) = sandbox.charges()
    assert run.xcoms["task", "invoice_pdf"] == f"https://invoices.example.com/{charge.invoice_id}.pdf"
    assert "invoice_pdf" not in run.result()


def test_topup_without_waiting_is_pending(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = topup(dag_folder, wait_for_completion=False)
    assert (run.result()["status"], run.result()["outcome"]) == ("pending", "charged")
    assert sandbox.requests("checkTopupStatus") == []
    assert len(sandbox.charges()) == 1


def test_amount_and_account_may_be_templates(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(ANOTHER_ACCOUNT)
    run = topup(dag_folder, amount_cents="{{ 1000 + 234 }}", account_id="{{ 'F' * 32 }}")
    (charge,) = sandbox.charges()
    assert (charge.account_id, charge.amount_cents) == (ANOTHER_ACCOUNT, 1234)
    assert run.result()["account_id"] == ANOTHER_ACCOUNT


def test_named_payment_method_is_charged(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(default_payment_method=None)
    run = topup(dag_folder, payment_method_id="pm_sandbox_second")
    assert run.state == "success"
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount_cents": 2500.5}, "must be a whole number of cents (1000 is $10.00); got 2500.5"),
        ({"amount_cents": True}, "must be a whole number of cents (1000 is $10.00); got True"),
        ({"amount_cents": "25.00"}, "amount_cents must be at least 1000 ($10.00); got '25.00'"),
        ({"amount_cents": "{{ '' }}"}, "must be a whole number of cents (1000 is $10.00); got ''"),
        ({"amount_cents": "$25"}, "must be a whole number of cents (1000 is $10.00); got '$25'"),
        ({"amount_cents": -2500}, "amount_cents must be at least 1000 ($10.00); got -2500"),
        ({"amount_cents": 999}, "amount_cents must be at least 1000 ($10.00); got 999"),
        ({"payment_method_id": "pm 1"}, "payment_method_id must be an id made of letters, digits"),
        ({"only_if_balance_below_cents": 0}, "only_if_balance_below_cents must be a number of cents above 0"),
        (
            {"only_if_runway_below_days": "soon"},
            "only_if_runway_below_days must be a number of days above 0; got 'soon'",
        ),
        (
            {"amount_cents": None, "target_balance_cents": "{{ '' }}"},
            "amount_cents must be a whole number of cents",
        ),
        ({"budget_cents": 5000}, "budget_cents and budget_period belong together"),
        ({"budget_period": "day"}, "budget_cents and budget_period belong together"),
        ({"budget_cents": True, "budget_period": "day"}, "budget_cents must be a number of cents above 0"),
        ({"budget_cents": 5000, "budget_period": "year"}, "budget_period must be one of day, week, month"),
    ],
)
def test_bad_input_is_refused_before_any_request(
    sandbox: Sandbox, dag_folder: DagFolder, arguments: dict[str, object], message: str
) -> None:
    run = topup(dag_folder, **arguments)
    assert run.state == "failed"
    assert message in run.ends
    assert sandbox.requests() == []


@pytest.mark.parametrize("name", ["poll_interval", "timeout"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "soon"])
def test_bad_seconds_are_refused_at_parse_time(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds above 0; got"):
        CfBillingCreateTopupOperator(task_id="task", amount_cents=2500, **{name: value})


@pytest.mark.parametrize(
    ("account", "arguments", "message"),
    [
        (
            {"min_cents": 5000},
            {},
            "amount_cents is 2500 cents ($25.00), but this account may top up from 5000 cents ($50.00) to "
            "100000 cents ($1,000.00) at once. Nothing was charged",
        ),
        ({"max_cents": 2000}, {}, "from 1000 cents ($10.00) to 2000 cents ($20.00) at once"),
        ({"default_payment_method": None}, {}, "The account has no default payment method"),
        (
            {},
            {"budget_cents": 2499, "budget_period": "day"},
            "The budget is 2499 cents ($24.99) a day",
        ),
    ],
)
def test_forbidden_topup_fails_before_it_is_sent(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    account: dict[str, object],
    arguments: dict[str, object],
    message: str,
) -> None:
    sandbox.configure(**account)
    run = topup(dag_folder, **arguments)
    assert run.state == "failed"
    assert message in run.ends
    assert posted(sandbox) == 0


def test_balance_guard_skips_when_there_is_enough(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=1000)
    run = topup(dag_folder, only_if_balance_below_cents=1000)
    assert run.tasks == {"task": "skipped"}
    assert posted(sandbox) == 0


def test_balance_guard_charges_when_it_is_low(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=999.99)
    run = topup(dag_folder, only_if_balance_below_cents="{{ 1000 }}")
    assert run.state == "success"
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize(("days", "state"), [("{{ 9 }}", "skipped"), ("{{ 11 }}", "success")])
def test_runway_guard(sandbox: Sandbox, dag_folder: DagFolder, days: str, state: str) -> None:
    sandbox.configure(balance_cents=2500, spend_per_day_cents=250)
    run = topup(dag_folder, only_if_runway_below_days=days)
    assert run.tasks == {"task": state}
    assert posted(sandbox) == (state == "success")


@pytest.mark.parametrize("deferrable", [False, True])
def test_target_balance(sandbox: Sandbox, dag_folder: DagFolder, deferrable: bool) -> None:
    sandbox.configure(balance_cents=640.19)
    target = {"amount_cents": None, "target_balance_cents": "{{ 10000 }}", "deferrable": deferrable}
    run = topup(dag_folder, **target)
    assert (run.result()["amount_cents"], run.result()["outcome"]) == (9400, "charged")
    assert topup(dag_folder, **target).tasks == {"task": "skipped"}
    (charge,) = sandbox.charges()
    assert charge.amount_cents == 9400


def test_dry_run_to_a_target_returns_what_is_missing(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(balance_cents=5000)
    run = topup(dag_folder, amount_cents=None, target_balance_cents=10_000, dry_run=True)
    assert (run.result()["amount_cents"], run.result()["outcome"]) == (5000, "dry_run")
    assert posted(sandbox) == 0


@pytest.mark.parametrize("given", [{}, {"amount_cents": 2500, "target_balance_cents": 10_000}])
def test_amount_or_target_must_be_given(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="Give either amount_cents or target_balance_cents"):
        CfBillingCreateTopupOperator(task_id="task", **given)


def test_budget_counts_what_was_charged_already(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    today = datetime.now(UTC)
    sandbox.add_invoice(1500, origin="auto")
    sandbox.add_invoice(9000, status="void")
    over = topup(dag_folder, budget_cents=4124, budget_period="day")
    assert over.state == "failed"
    assert (
        f"Since {today:%Y-%m-%d} (UTC) 1500 cents ($15.00) were charged, so 2500 cents ($25.00) more, "
        "2625 cents ($26.25) with Cloudflare's fee of 5 %, would exceed it. Nothing was charged." in over.ends
    )
    assert posted(sandbox) == 0
    assert topup(dag_folder, budget_cents=4125, budget_period="day").state == "success"


def test_dry_run_checks_everything_and_charges_nothing(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = topup(dag_folder, dry_run=True, budget_cents=5000, budget_period="month")
    assert run.state == "success"
    assert (run.result()["outcome"], run.result()["payment_intent_id"]) == ("dry_run", None)
    assert {request.operation for request in sandbox.requests()} == {
        "getCreditBalance",
        "getTopupEligibility",
        "getInvoiceHistory",
    }
    assert topup(dag_folder, dry_run=True, amount_cents=200_000).state == "failed"


def test_declined_card_fails_without_a_retry(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(topup_outcome="declined")
    run = topup(dag_folder)
    assert run.state == "failed"
    assert "declined" in run.ends
    assert (posted(sandbox), sandbox.charges()) == (1, [])


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize("kind", ["reset", "drop", "hang", "status", "truncate"])
def test_lost_response_is_adopted_not_charged_again(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    deferrable: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?read_timeout=0.9")
    sandbox.configure(history_lag_seconds=1)
    sandbox.fault("createTopup", kind, when="after", **({"status": 502} if kind == "status" else {}))
    run = topup(dag_folder, deferrable=deferrable)
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert (run.result()["outcome"], run.result()["payment_intent_id"]) == ("adopted", charge.invoice_id)
    assert posted(sandbox) == 1


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("deferrable", [False, True])
def test_lost_charge_is_repeated_only_when_proven_lost(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?read_timeout=0.9")
    sandbox.fault("createTopup", "reset")
    run = topup(dag_folder, deferrable=deferrable, unknown_outcome_window=3)
    assert run.state == "success"
    assert run.result()["outcome"] == "charged"
    assert (posted(sandbox), len(sandbox.charges())) == (2, 1)


def test_too_short_window_is_refused(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    run = topup(dag_folder, unknown_outcome_window=60)
    assert run.state == "failed"
    assert "unknown_outcome_window is 60 s, but a charge may be under way for 65 s" in run.ends
    assert sandbox.requests() == []


@pytest.mark.parametrize("status", ["void", "uncollectible"])
def test_failed_payment_fails_without_a_retry(sandbox: Sandbox, dag_folder: DagFolder, status: str) -> None:
    sandbox.configure(topup_outcome=status)
    run = topup(dag_folder)
    (charge,) = sandbox.charges()
    assert run.state == "failed"
    assert f"The payment of top-up {charge.invoice_id} failed: its invoice is {status}" in run.ends
    assert posted(sandbox) == 1


@pytest.mark.usefixtures("short_windows")
def test_retry_resumes_a_wait_that_timed_out(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=4)  # a busy machine may take seconds for a try of one
    run = topup(dag_folder, timeout=1.0, retries=6)
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert f"Top-up {charge.invoice_id} is pending after 1 s. The card may need 3-D Secure" in run.ends
    assert run.result()["payment_intent_id"] == charge.invoice_id
    assert run.result()["outcome"] == "resumed"


@pytest.mark.usefixtures("short_backoff")
def test_wait_outlives_an_outage(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?max_attempts=1")
    sandbox.fault("checkTopupStatus", "status", status=503, times=4)
    run = topup(dag_folder)
    assert run.state == "success"
    assert len(sandbox.charges()) == 1


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("not-the-token", "Cloudflare refused the credentials"),
        (READ_TOKEN, 'The API token needs the permission "AI Gateway Write"'),
    ],
)
def test_refused_credentials_fail_without_a_retry(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    message: str,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", sandbox.connection_uri(token=token))
    run = topup(dag_folder)
    assert run.state == "failed"
    assert message in run.ends
    assert sandbox.charges() == []


def test_unreachable_before_the_charge_is_retried_by_airflow(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "max_attempts=1&read_timeout=0.9"
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?{options}")
    sandbox.fault("getCreditBalance", "drop")
    run = topup(dag_folder, unknown_outcome_window=6)
    assert run.state == "success"
    assert len(sandbox.charges()) == 1


def test_no_secret_reaches_log_or_database(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "DEBUG")
    run = topup(dag_folder)
    seen = "".join(capfd.readouterr()) + caplog.text + repr(run) + dag_folder.database_dump()
    if version("apache-airflow").startswith("3.0."):  # which shows what it masks, when it runs in one process
        seen, shown = re.subn(r"Sending request +msg=MaskSecret\(value='[^']*'", "", seen)
        assert shown
    assert run.state == "success"
    assert sandbox.token not in seen
    assert "seti_" not in seen  # how a client_secret begins


def test_subclass_may_return_what_it_likes(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    run = dag_folder.run(
        """\
class IdOnly(CfBillingCreateTopupOperator):
    def execute(self, context):
        return super().execute(context)["payment_intent_id"]

IdOnly(task_id="task", amount_cents=2500, poll_interval=0.1)
"""
    )
    (charge,) = sandbox.charges()
    assert run.state == "success"
    assert run.result() == run.xcoms["task", "payment_intent_id"] == charge.invoice_id


def test_mapped_topups_have_separate_outputs(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    run = dag_folder.run(
        "CfBillingCreateTopupOperator.partial(task_id='task', poll_interval=0.1, dry_run=True)"
        ".expand(amount_cents=[1000, 2000])"
    )
    assert run.state == "success"
    assert [run.xcoms[f"task[{index}]", "amount_cents"] for index in (0, 1)] == [1000, 2000]


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ({"only_if_balance_below_cents": 100}, "skipped"),
        ({"dry_run": True}, "success"),
        ({"cfbilling_conn_id": "no_such", "retries": 0}, "failed"),
    ],
)
def test_links_that_have_no_address_log_no_error(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    capfd: pytest.CaptureFixture[str],
    arguments: dict[str, object],
    state: str,
) -> None:
    """Airflow 3 requests every link at the end of a try, and logs a missing XCom as an error."""
    run = topup(dag_folder, **arguments)
    assert run.tasks == {"task": state}
    assert "XCom not found" not in "".join(capfd.readouterr())
