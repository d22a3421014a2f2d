"""Values in all the shapes in which Airflow, pandas and JSON hand them over: read, or refused by name."""

from collections.abc import Callable
from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.providers.common.compat.sdk import timezone
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.triggers.cfbilling import CfBillingCreditBalanceTrigger
from tests.airflow_runs import DagFolder

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
WHOLE = [
    2500,
    2500.0,
    "2500",
    " 2500 ",
    "2500.0",
    "2500.",
    "2.5e3",
    "+2500",
    np.int64(2500),
    np.int16(2500),
    np.uint32(2500),
    np.float64(2500),
    np.float32(2500),
    Decimal("2500.00"),
    Fraction(5000, 2),
    pd.Series([2500]).iloc[0],
    pd.DataFrame({"cents": [2500.0]})["cents"].sum(),
]
NO_NUMBER = [
    True,
    np.bool_(True),
    "True",
    "$25",
    "2,500",
    "2_500",
    "0x9c4",
    "\u0662\u0665\u0660\u0660",  # Arabic-Indic digits
    "2500 cents",
    "{{ cents }}",
    "nan",
    "inf",
    "1e999999999",
    float("nan"),
    float("inf"),
    np.float64("nan"),
    Decimal("nan"),
    Decimal("sNaN"),
    Decimal("inf"),
    pd.NA,
    pd.NaT,
    b"2500",
    [2500],
    (2500,),
    {"cents": 2500},
    np.array([2500]),
    pd.Series([2500]),
    2500j,
    object(),
    10**400,
    -1,
    0,
    "-2500",
]
NOTHING = [None, "", " ", "\n", "None", " None "]


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_number_in_any_shape_is_a_plain_number(value: Any) -> None:
    read = [
        validation.amount_cents(value),
        validation.cents("line", value),
        validation.seconds("interval", value),
        validation.number("attempts", value, 1, 9999, "tries", whole=True),
    ]
    assert read == [2500] * 4
    assert {type(number) for number in read} == {int}


@pytest.mark.parametrize(
    "value", [1000.5, "1000.5", np.float64(1000.5), Decimal("1000.5"), Fraction(2001, 2)], ids=repr
)
def test_fraction_is_one_if_it_may_be_one(value: Any) -> None:
    assert validation.cents("line", value) == validation.seconds("interval", value) == 1000.5
    with pytest.raises(ValueError, match="amount_cents must be a whole number of cents"):
        validation.amount_cents(value)
    with pytest.raises(ValueError, match="attempts must be a whole number"):
        validation.number("attempts", value, 1, 9999, "tries", whole=True)


@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda value: f"{type(value).__name__} {value!r:.15}")
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    for read, name in (
        (validation.amount_cents, "amount_cents"),
        (lambda value: validation.cents("line", value), "line"),
        (lambda value: validation.seconds("interval", value), "interval"),
        (lambda value: validation.number("attempts", value, 1, 9999, "tries"), "attempts"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must be .*; got "):
            read(value)


@pytest.mark.parametrize("value", NOTHING, ids=repr)
@pytest.mark.parametrize(
    "read",
    [
        lambda value: validation.cents("line", value),
        lambda value: validation.seconds("interval", value),
        lambda value: validation.timestamp("since", value),
        lambda value: validation.stripe_id("payment_method_id", value),
        lambda value: validation.account_id(value),
        lambda value: validation.text("name", value),
        lambda value: validation.choice("period", value, ["day"]),
    ],
)
def test_nothing_is_nothing(read: Callable[[Any], Any], value: Any) -> None:
    assert read(value) is None


@pytest.mark.parametrize("value", [*NOTHING, pd.NA, float("nan")], ids=repr)
def test_an_amount_is_never_nothing(value: Any) -> None:
    with pytest.raises(ValueError, match=r"amount_cents must be a whole number of cents \(1000 is \$10.00\)"):
        validation.amount_cents(value)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 31, tzinfo=UTC),
        timezone.datetime(2026, 1, 31),
        pd.Timestamp("2026-01-31", tz="UTC"),
        "2026-01-31T00:00:00+00:00",
        "2026-01-31 00:00:00+00:00",
        "2026-01-31T01:00:00+01:00",
        " 2026-01-31T00:00:00Z\n",
    ],
    ids=repr,
)
def test_time_with_a_zone_is_read(value: Any) -> None:
    assert validation.timestamp("since", value) == datetime(2026, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 31),  # noqa: DTZ001
        "2026-01-31",
        "2026-01-31T00:00:00",
        "yesterday",
        1769817600,
        date(2026, 1, 31),
        np.datetime64("2026-01-31"),
        pd.NaT,
        True,
    ],
    ids=repr,
)
def test_time_without_a_zone_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="since must be a datetime with a time zone"):
        validation.timestamp("since", value)


def test_length_of_time_is_a_number_of_seconds() -> None:
    assert validation.seconds("interval", timedelta(minutes=2)) == 120
    assert validation.seconds("interval", pd.Timedelta(minutes=2)) == 120
    for none in (timedelta(0), timedelta(seconds=-1), pd.NaT):
        with pytest.raises(ValueError, match="interval must be a number of seconds above 0"):
            validation.seconds("interval", none)


@pytest.mark.parametrize(
    "value", ["false", "True", 0, 1, None, "{{ params.dry }}", np.bool_(True), ""], ids=repr
)
def test_only_a_boolean_is_one(value: Any) -> None:
    with pytest.raises(ValueError, match="dry_run must be True or False, known when the Dag is parsed"):
        validation.boolean("dry_run", value)


def test_value_without_a_repr_is_refused_too() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ValueError, match=r"amount_cents must be a whole number of cents.*; got Odd"):
        validation.amount_cents(Odd())


@given(st.one_of(st.text(max_size=20), st.floats(), st.integers(), st.decimals(), st.binary(max_size=5)))
def test_amount_is_the_given_number_or_refused(value: Any) -> None:
    try:
        cents = validation.amount_cents(value)
    except ValueError:
        return
    assert type(cents) is int
    assert cents >= 1000
    assert cents == (float(value) if isinstance(value, str) else value)


# the same in all classes


@pytest.mark.parametrize(
    "value", ["{{ 1000.5 }}", np.float64(1000.5), Decimal("1000.5"), " 1000.5 "], ids=repr
)
def test_operator_and_sensor_read_the_same_line(sandbox: Sandbox, dag_folder: DagFolder, value: Any) -> None:
    sandbox.configure(balance_cents=1000.25, settle_seconds=0)
    shapes = "import numpy as np\nfrom decimal import Decimal\n"
    for task in (
        "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, only_if_balance_below_cents="
        f"{value!r})",
        f"CfBillingCreditBalanceSensor(task_id='task', below_cents={value!r}, poke_interval=0.1, timeout=5)",
    ):
        assert dag_folder.run(shapes + task).state == "success"
        sandbox.configure(balance_cents=1000.25)


def test_amount_of_another_task_may_come_from_pandas(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    run = dag_folder.run(
        """\
from airflow.providers.common.compat.sdk import task

@task
def amount():
    import pandas as pd

    return pd.Series([1000, 1500]).sum()

CfBillingCreateTopupOperator(task_id='task', amount_cents=amount(), poll_interval=0.1)
"""
    )
    assert run.state == "success"
    assert [charge.amount_cents for charge in sandbox.charges()] == [2500]


def test_charge_is_sent_as_plain_json(sandbox: Sandbox) -> None:
    from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook

    hook: CfBillingHook = CfBillingHook()
    hook.create_topup(np.int64(2500), " pm_sandbox_second ")  # type: ignore[arg-type]
    client: CfBillingClient = hook.get_conn()
    assert client.get_invoice_history("manual").invoices[0].amount_due_cents >= 2500


def test_guards_that_render_to_nothing_are_not_there(sandbox: Sandbox, dag_folder: DagFolder) -> None:
    sandbox.configure(settle_seconds=0)
    run = dag_folder.run(
        "CfBillingCreateTopupOperator(task_id='task', amount_cents='{{ 2500 }}', poll_interval=0.1,"
        " only_if_balance_below_cents='{{ None }}', budget_cents='', budget_period='{{ none }}',"
        " payment_method_id='{{ None }}', account_id=' ', cfbilling_conn_id='{{ None }}')"
    )
    assert run.state == "success"


def test_order_holds_plain_values() -> None:
    given: Any = {
        "amount_cents": "2500",
        "payment_method_id": " pm_1 ",
        "only_if_balance_below_cents": np.int64(900),
        "only_if_runway_below_days": timedelta(hours=36),
        "budget_cents": Decimal(9000),
        "budget_period": " month ",
    }
    order = TopupOrder(**given)
    assert astuple(order) == (2500, "pm_1", None, 900, 1.5, 9000, "month", None)
    assert {type(order.only_if_balance_below_cents), type(order.budget_cents)} == {int}


def test_operator_accepts_seconds_as_timedelta() -> None:
    task = CfBillingCreateTopupOperator(
        task_id="task",
        amount_cents=2500,
        poll_interval=timedelta(minutes=1),
        timeout="120",  # type: ignore[arg-type]
    )
    assert (task.poll_interval, task.timeout) == (60, 120)


def test_trigger_serializes_its_values_as_json() -> None:
    trigger = CfBillingCreditBalanceTrigger("cfbilling_default", None, 60, np.int64(2000), None)
    trigger.validate()
    _, arguments = trigger.serialize()
    assert (arguments["below_cents"], type(arguments["below_cents"])) == (2000, int)
