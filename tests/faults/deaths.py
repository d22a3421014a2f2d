"""Rows in which processes die, freeze and go on, and in which the journal fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.responses import too_many
from tests.faults.rows import (
    LATE,
    LOST_AND_CHARGED,
    LOST_AND_NOT_CHARGED,
    Plan,
    Row,
    any_lost_and_charged,
    between,
    one_of,
    post,
)
from tests.faults.scheduler import Steps

if TYPE_CHECKING:
    from tests.faults.trial import Trial

STATES = ("started", "intent", "accepted", "completed")
UNDER_WAY = {"point": "POST topup body", "delay": between(0.05, 0.5)}


def cleared(trial: Trial) -> Steps:
    """Run a task, and once more as after a user's clear."""
    task = trial.task()
    yield from task.run()
    yield from task.clear()


def kills() -> list[Row]:
    def killed(where: str, *strikes: Plan, **more: Any) -> Row:
        return Row(f"killed {where}", strikes=strikes, **more)

    hang = {"kind": "hang"}
    rows = [
        killed("at the start", {"point": "start"}),
        killed("reading the journal", {"point": "read"}),
        killed("before the first request", {"point": "connected"}),
        killed(
            "checking",
            {"point": one_of("GET topup/eligibility", "GET credit-balance", "GET invoice-history")},
        ),
        killed("as it connects for the POST", {"point": "connected", "nth": 2}),
        killed("before the POST's first byte", {"point": "POST topup"}),
        killed("with the response on its way", {"point": "POST topup body", "delay": between(0.001, 0.03)}),
        killed("in the POST, not charged", UNDER_WAY, faults=(post(hang),)),
        killed("in the POST, charged", UNDER_WAY, faults=(post(hang, when="after"),)),
        killed("in mid-response", UNDER_WAY, faults=(post(hang, when="middle"),)),
        killed("in the POST, charged late", UNDER_WAY, faults=(post(hang, **LATE),)),
        killed("once the id is in XCom", {"point": "pushed"}),
        killed(
            "waiting for a lost charge",
            {"point": "GET invoice-history", "since": "POST topup", "delay": between(0, 0.5)},
            {"point": "resume", "delay": between(0, 0.2)},
            faults=(LOST_AND_CHARGED,),
            account={"history_lag_seconds": 0.8},
        ),
        killed(
            "waiting for a charge not made",
            {"point": "GET invoice-history", "since": "POST topup", "delay": between(0, 6)},
            {"point": "resume", "delay": between(0, 0.1)},
            faults=(LOST_AND_NOT_CHARGED,),
        ),
        killed(
            "charging again",
            {"point": "POST topup", "nth": 2, "delay": one_of(0.0, 0.005, 0.02)},
            {"point": "POST topup", "since": "resume", "delay": one_of(0.0, 0.005, 0.02)},
            faults=(LOST_AND_NOT_CHARGED,),
        ),
        killed(
            "waiting for the settlement",
            {"point": "POST topup/status", "nth": one_of(1, 2), "delay": between(0, 0.2)},
            {"point": "POST topup/status", "since": "resume", "delay": between(0, 0.1)},
            account={"settle_seconds": 1.0},
        ),
        killed("as it resumes", {"point": "resume"}, deferrable=True),
        killed(
            "as it resumes after a lost response",
            {"point": "resume"},
            faults=(any_lost_and_charged,),
            deferrable=True,
        ),
        killed("at any time", {"point": "start", "delay": between(0, 1)}),
        killed(
            "at any time in three tries",
            {"point": "start", "delay": between(0, 6), "tries": (1, 2, 3)},
            faults=(one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),),
            tries=6,
        ),
        Row(
            "triggerer killed",
            deferrable=True,
            triggerer_dies=(between(0, 0.5), between(0, 1)),
            account={"settle_seconds": 1.0},
        ),
        Row(
            "triggerer killed searching for a lost charge",
            (one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),),
            deferrable=True,
            triggerer_dies=(between(0, 0.5), between(0, 1)),
        ),
    ]
    for state in STATES:
        rows.append(killed(f"before the journal's {state}", {"point": f"write:{state}"}))
        rows.append(killed(f"after the journal's {state}", {"point": f"written:{state}"}))
    not_charged = {"faults": (LOST_AND_NOT_CHARGED,)}
    rows.append(killed("before the journal's not_charged", {"point": "write:not_charged"}, **not_charged))
    rows.append(killed("after the journal's not_charged", {"point": "written:not_charged"}, **not_charged))
    return rows


def orphans() -> list[Row]:
    """Two processes of one task at once: the first one was frozen, and goes on when it is not expected."""
    rows = []
    for thaw, when in {"started": "next try under way", "ended": "next try over"}.items():
        on = {"act": "freeze", "thaw": thaw, "thaw_delay": between(0, 5 if thaw == "started" else 0.2)}

        def frozen(where: str, *strikes: Plan, on: Plan = on, when: str = when, **more: Any) -> Row:
            return Row(f"frozen {where}, {when}", strikes=tuple({**each, **on} for each in strikes), **more)

        for where, point in {
            "at the start": "start",
            "reading the journal": "read",
            "before the journal's started": "write:started",
            "after the journal's started": "written:started",
            "before the journal's intent": "write:intent",
        }.items():
            rows.append(frozen(where, {"point": point}))
        rows += [
            frozen("between intent and POST", {"point": "written:intent"}),
            frozen("checking", {"point": one_of("GET topup/eligibility", "GET credit-balance")}),
            frozen("as it queries the history", {"point": "GET invoice-history"}),
            frozen("as it connects for the POST", {"point": "connected", "nth": 2}),
            frozen(
                "with the response on its way", {"point": "POST topup body", "delay": between(0.02, 0.06)}
            ),
            frozen("in the POST, charged", UNDER_WAY, faults=(post({"kind": "hang", "when": "after"}),)),
            frozen("in the POST, not charged", UNDER_WAY, faults=(post({"kind": "hang"}),)),
            frozen("before the journal's accepted", {"point": "write:accepted"}),
            frozen(
                "waiting for a lost charge",
                {"point": "GET invoice-history", "since": "POST topup", "delay": between(0, 3)},
                {"point": "resume"},
                faults=(one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),),
            ),
            frozen(
                "charging again",
                {"point": "write:intent", "nth": 2},
                {"point": "write:intent", "since": "resume"},
                faults=(LOST_AND_NOT_CHARGED,),
            ),
            frozen("waiting for the settlement", {"point": "POST topup/status"}, {"point": "resume"}),
            frozen(
                "waiting for the settlement of a lost charge",
                {"point": "POST topup/status"},
                faults=(any_lost_and_charged,),
                deferrable=False,
            ),
            frozen("before the journal's completed", {"point": "write:completed"}),
            frozen("after the journal's completed", {"point": "written:completed"}),
            frozen("before its success is reported", {"point": "succeeded"}),
            frozen("forgetting", {"point": one_of("delete", "deleted")}, store=False),
        ]
    return rows


def failing_journals() -> list[Row]:
    def broken(what: str, *points: str, on: tuple[int, ...] = (1,), **more: Any) -> Row:
        strikes = tuple({"point": point, "act": "raise", "tries": on} for point in points)
        return Row(f"journal: {what}", strikes=(*strikes, *more.pop("deaths", ())), **more)

    pushed: tuple[Plan, ...] = ({"point": "pushed"},)
    waiting: tuple[Plan, ...] = ({"point": "POST topup/status"},)
    sent: tuple[Plan, ...] = ({"point": "POST topup", "delay": 0.02},)
    not_charged, lost = (LOST_AND_NOT_CHARGED,), (any_lost_and_charged,)
    rows = [
        broken("unreadable", "read"),
        broken("unreadable after a kill", "read", on=(2,), deaths=sent),
        broken("unreadable after a lost response", "read", on=(2,), faults=lost, deaths=pushed),
        broken("intent is not written in two tries", "write:intent", on=(1, 2)),
        broken(
            "not_charged is not written after 429", "write:not_charged", faults=(too_many("createTopup"),)
        ),
        broken("accepted is not written, and killed", "write:accepted", deaths=waiting),
        broken("adoption is not written, and killed", "write:accepted", faults=lost, deaths=pushed),
        # What was done once the intent is written needs no journal: one try is enough.
        broken("nothing is written after the intent", "write:accepted", "write:completed", in_one_try=True),
        broken("not_charged is not written", "write:not_charged", faults=not_charged, in_one_try=True),
    ]
    for state in STATES:
        alone = state in ("accepted", "completed")
        rows.append(broken(f"{state} is not written", f"write:{state}", in_one_try=alone))
        rows.append(broken(f"{state} is written without a response", f"written:{state}", in_one_try=alone))
    return rows


def variables_rows() -> list[Row]:
    """What only Variables do: they are written, or not, without a word; they are removed in the end."""
    pushed: tuple[Plan, ...] = ({"point": "pushed"},)
    sent: tuple[Plan, ...] = ({"point": "POST topup", "delay": 0.02},)
    lost = (any_lost_and_charged,)

    def row(what: str, *strikes: Plan, **more: Any) -> Row:
        return Row(f"variables: {what}", strikes=strikes, store=False, **more)

    rows = []
    for act, does in {"lose": "lost", "late": "late"}.items():
        for state in STATES:
            strike = {"point": f"write:{state}", "act": act}
            rows.append(row(f"{state} is {does}", strike))
            rows.append(row(f"{state} is {does}, and killed", strike, *pushed, faults=lost))
        rows.append(
            row(
                f"not_charged is {does}",
                {"point": "write:not_charged", "act": act},
                faults=(LOST_AND_NOT_CHARGED,),
            )
        )
        rows.append(row(f"delete is {does}", {"point": "delete", "act": act}, story=cleared))
    after = {"point": one_of("delete", "deleted")}
    return [
        *rows,
        row("killed forgetting", after),
        row("killed forgetting, after a retry", {**after, "tries": (2,), "nth": one_of(1, 2)}, *pushed),
        row("killed forgetting, then cleared", {"point": one_of("delete", "deleted")}, story=cleared),
        row("killed before its success is reported", {"point": "succeeded"}),
        row(
            "killed forgetting what is skipped",
            {"point": one_of("delete", "deleted")},
            ends="skipped",
            charges=0,
            operator={"only_if_balance_below_cents": 100},
        ),
        row(
            "a read finds nothing, after a kill",
            *sent,
            {"point": "read", "act": "blind", "nth": one_of(1, 2, 3, 4), "tries": (2,)},
        ),
        row(
            "a read finds nothing, and the response was lost",
            *pushed,
            {"point": "read", "act": "blind", "nth": one_of(1, 2, 3, 4), "tries": (2,)},
            faults=lost,
        ),
        row("a read finds nothing", {"point": "read", "act": "blind", "nth": one_of(*range(1, 9))}),
    ]
