"""An invalid order is refused by the name of its parameter."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.charging.order import TopupOrder


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *[
            ({"amount_cents": amount}, "amount_cents must be")
            for amount in (999, 0, -1000, True, 1000.5, "{{ amount }}", None, "None", " ", float("nan"))
        ],
        *[
            ({"payment_method_id": method}, "payment_method_id must be an id")
            for method in ("pm 1", "pm_1/", 1)
        ],
        *[
            ({"only_if_balance_below_cents": cents}, "only_if_balance_below_cents must be a number")
            for cents in (0, -1, True, "many", float("nan"), float("inf"))
        ],
        *[
            ({"budget_cents": cents, "budget_period": "day"}, "budget_cents must be a number")
            for cents in (0, -1, True, "-1", float("nan"), float("inf"))
        ],
        ({"budget_cents": 5000}, "belong together"),
        ({"budget_period": "day"}, "belong together"),
        ({"budget_cents": 5000, "budget_period": "None"}, "belong together"),
        *[
            ({"budget_cents": 5000, "budget_period": period}, "budget_period must be one of day, week, month")
            for period in ("year", "Day", 1, ["day"])
        ],
    ],
    ids=repr,
)
def test_invalid_order_is_refused_by_name(given: dict[str, Any], named: str):
    with pytest.raises(CfBillingInvalidRequestError, match=named):
        TopupOrder(**{"amount_cents": 1000} | given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"payment_method_id": "pm_1"},
        {"only_if_balance_below_cents": 0.5},
        *[{"budget_cents": 1, "budget_period": period} for period in ("day", "week", "month")],
    ],
    ids=repr,
)
def test_valid_order_is_accepted_and_frozen(given: dict[str, Any]):
    order = TopupOrder(amount_cents=1000, **given)
    with pytest.raises(FrozenInstanceError):
        order.amount_cents = 2000  # type: ignore[misc]
