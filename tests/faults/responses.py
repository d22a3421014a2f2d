"""Rows in which responses are lost: the charge's, and those of the reads around it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from tests.faults.rows import (
    ANY_5XX,
    LATE,
    LOST,
    LOST_AND_CHARGED,
    LOST_AND_NOT_CHARGED,
    Plan,
    Row,
    any_lost_and_charged,
    between,
    one_of,
    post,
)

if TYPE_CHECKING:
    from tests.faults.trial import Trial


def lost_responses() -> list[Row]:
    # One try is enough: these are found out without Airflow's help.
    rows = [Row("nothing goes wrong", in_one_try=True)]
    for name, plan in LOST.items():
        rows.append(Row(f"POST {name}, not charged", (post(plan),), in_one_try=True))
        rows.append(Row(f"POST {name}, charged", (post(plan, when="after"),), in_one_try=True))
        if plan["kind"] != "slow":
            rows.append(Row(f"POST {name}, charged late", (post(plan, **LATE),), in_one_try=True))
        if plan["kind"] in ("reset", "drop", "hang"):
            rows.append(Row(f"POST {name} in mid-response", (post(plan, when="middle"),), in_one_try=True))
    late_524 = post({"kind": "status", "status": 524, "html": True}, **LATE)
    lag = {"history_lag_seconds": between(0.2, 0.9)}
    for status in (408, 409, 423, 425, 499):
        plan = {"kind": "status", "status": status}
        rows.append(Row(f"POST returning {status} in JSON, not charged", (post(plan),), in_one_try=True))
        charged = post(plan, when="after")
        rows.append(Row(f"POST returning {status} in JSON, charged", (charged,), in_one_try=True))
    return [
        *rows,
        Row("POST with a slow response", (post({"kind": "slow", "when": "after", "seconds": 0.001}),)),
        Row("POST returning 524, charged and listed late", (late_524,), account=lag),
        Row("POST lost, listed late", (any_lost_and_charged,), account=lag),
        Row(
            "POST lost, with fee and tax", (any_lost_and_charged,), account={"tax_percent": one_of(7, 21, 27)}
        ),
        Row("POST lost, no fee", (any_lost_and_charged,), account={"fee_percent": 0.0}),
        Row("POST lost, sparse responses", (any_lost_and_charged,), account={"sparse": True}),
        Row("POST lost twice, not charged", (post({"kind": "drop", "times": 2}),)),
        Row("POST lost, not charged, then lost and charged", (LOST_AND_NOT_CHARGED, LOST_AND_CHARGED)),
        *_clocks_that_are_off(),
        Row(
            "POST lost, history pages refused",
            (one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),),
            account={"page_parameter": "refused", "per_page": 2},
            before=_three_others,
        ),
        Row("status not known yet", account={"status_lag_seconds": between(0.5, 2)}, in_one_try=True),
        Row(
            "POST lost, status not known yet",
            (any_lost_and_charged,),
            account={"status_lag_seconds": between(0.5, 2)},
        ),
        Row("limits are gone", (_gone("getTopupEligibility"), _gone("getTopupLimits")), in_one_try=True),
        Row("balance is gone", (_gone("getCreditBalance"),), in_one_try=True),
        *(
            Row(f"{what}no trigger can wait: {why}", faults, trigger=why, deferrable=True)
            for why in ("broken", "missing", "fails")
            for what, faults in (("", ()), ("POST lost, ", (any_lost_and_charged,)))
        ),
        Row("POST lost, clocks apart", (any_lost_and_charged,), clock_offset=one_of(-60, -5, 5, 60)),
        Row("POST not made, clocks apart", (LOST_AND_NOT_CHARGED,), clock_offset=one_of(-60, -5, 5, 60)),
        Row("POST refused by 429 with retry-after", (too_many("createTopup", times=2),)),
        Row(
            "POST refused by 429",
            (post({"kind": "status", "status": 429, "times": 2}),),
        ),
        # Later than the window promises: found all the same if nothing has been charged in the meantime.
        Row(
            "POST lost, listed after the window, further POSTs refused",
            (LOST_AND_CHARGED, post({"kind": "status", "status": 429, "times": 40})),
            account={"history_lag_seconds": between(6.5, 8)},
            tries=40,
            beyond_promise=True,
        ),
        Row(
            "POST lost, no wait for completion",
            (any_lost_and_charged,),
            operator={"wait_for_completion": False},
        ),
        Row("POST lost, balance guard", (any_lost_and_charged,), **_guarded()),
        Row("killed after the charge, balance guard", **_guarded(), strikes=({"point": "pushed"},)),
        Row(
            "killed after the charge, budget",
            operator={"budget_cents": 2700, "budget_period": "month"},
            strikes=({"point": "pushed", "delay": between(0, 0.2)},),
        ),
    ]


def too_many(operation: str, **more: Any) -> Plan:
    return {
        "operation": operation,
        "kind": "status",
        "status": 429,
        "headers": {"retry-after": "1"},
        **more,
    }


def _gone(operation: str) -> Plan:
    return {"operation": operation, "kind": "status", "status": 404, "times": None}


def _three_others(trial: Trial) -> None:
    for _ in range(3):
        trial.past_invoice(amount_cents=9900)


def _clocks_that_are_off() -> list[Row]:
    """One response of the history whose date is wrong."""
    rows = []
    lost = {"charged": LOST_AND_CHARGED, "not charged": LOST_AND_NOT_CHARGED}
    for (what, plan), (where, skip) in product(lost.items(), {"the intent": 0, "the first poll": 1}.items()):
        clock = {"operation": "getInvoiceHistory", "kind": "clock", "skip": skip}
        for way, seconds in {"ahead": 3600.0, "behind": -3600.0}.items():
            rows.append(
                Row(
                    f"POST lost, {what}, clock {way} at {where}",
                    (plan, {**clock, "seconds": seconds}),
                    account={"history_lag_seconds": between(0.2, 3)},
                )
            )
    return rows


def _guarded() -> dict[str, Any]:
    return {
        "account": {"balance_cents": 100.0, "settle_seconds": 0.1},
        "operator": {"only_if_balance_below_cents": 1000},
    }


def failing_reads() -> list[Row]:
    kinds: dict[str, Plan] = {
        "is 5xx for a while": {"kind": "status", "status": ANY_5XX, "html": one_of(True, False), "times": 5},
        "is reset": {"kind": "reset"},
        "is dropped": {"kind": "drop", "times": 4},
        "hangs": {"kind": "hang"},
        "is garbage": {"kind": "garbage"},
        "trickles": {"kind": "slow", "seconds": 0.1, "when": "after"},
        "is cut short": {"kind": "truncate", "when": "after"},
        "is 429 with retry-after": {"kind": "status", "status": 429, "headers": {"retry-after": "1"}},
        "is 429": {"kind": "status", "status": 429, "times": 4},
        "is redirected": {"kind": "redirect"},
    }
    advice = ("getTopupEligibility", "getCreditBalance")
    operations = [*advice, "getInvoiceHistory", "checkTopupStatus"]
    rows = [
        Row(
            f"{operation} {name}",
            ({"operation": operation, **plan},),
            in_one_try=operation in advice and "429" not in name,  # a pause is one for all requests
        )
        for operation, (name, plan) in product(operations, kinds.items())
    ]
    for name, plan in kinds.items():
        fault = {"operation": "getInvoiceHistory", **plan, "skip": 1}
        rows.append(
            Row(f"POST lost and charged, then the history {name}", (LOST_AND_CHARGED, fault), in_one_try=True)
        )
        rows.append(
            Row(
                f"POST lost, not charged, then the history {name}",
                (LOST_AND_NOT_CHARGED, fault),
                in_one_try=True,
            )
        )
    outage = {"operation": "getInvoiceHistory", "kind": "status", "status": 503, "skip": 1, "times": 27}
    paused = {
        "kind": "status",
        "status": 503,
        "headers": {"ratelimit": '"default";r=0;t=1'},
        "operation": "getInvoiceHistory",
    }
    return [
        *rows,
        Row(
            "POST lost and charged, history away longer than the window", (LOST_AND_CHARGED, outage), tries=8
        ),
        Row("everything is away", ({"operation": "*", "kind": "drop", "times": 7},), tries=6),
        Row("everything is away after the POST", (LOST_AND_CHARGED, _everything_later()), tries=8),
        Row("the quota is used up before the POST", (paused,)),
    ]


def _everything_later() -> Plan:
    # Its turn comes after the POST's own fault; four requests have passed by then.
    return {"operation": "*", "kind": one_of("drop", "reset"), "skip": 4, "times": 9}
