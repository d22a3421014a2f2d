"""Rows that need a person, that are longer than one run of one task, and that hold anything at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.faults.deaths import UNDER_WAY, cleared
from tests.faults.rows import (
    LATE,
    LOST,
    LOST_AND_CHARGED,
    LOST_AND_NOT_CHARGED,
    Draw,
    Plan,
    Row,
    any_lost_and_charged,
    between,
    one_of,
    post,
)
from tests.faults.scheduler import Steps, pause, together

if TYPE_CHECKING:
    from random import Random

    from tests.faults.trial import Trial

_REFUSED = {"kind": "status", "when": "before"}
_NOTHING = ("Nothing was charged",)


def review_rows() -> list[Row]:
    """What no machine can determine, and what is refused."""

    def reviewed(name: str, *faults: Plan | Draw, charges: int = 1, **more: Any) -> Row:
        return Row(name, faults, ends="person", charges=charges, **more)

    history_refused = {"operation": "getInvoiceHistory", **_REFUSED, "status": 403, "skip": 1}
    return [
        reviewed("two invoices can be it", post({"kind": "hang", "when": "after"}), story=_another_like_it),
        reviewed(
            "history does not reach back",
            LOST_AND_NOT_CHARGED,
            charges=0,
            account={"per_page": 1, "page_parameter": "ignored"},
            story=_others_since,
        ),
        reviewed(
            "an invoice without a date",
            LOST_AND_NOT_CHARGED,
            charges=0,
            before=lambda trial: trial.past_invoice(without="created"),
        ),
        reviewed(
            "an invoice without an id",
            LOST_AND_NOT_CHARGED,
            charges=0,
            before=lambda trial: trial.past_invoice(without="id"),
        ),
        reviewed("card is declined", charges=0, account={"topup_outcome": "declined"}),
        *(
            reviewed(
                f"POST refused by {status}", post({**_REFUSED, "status": status}), charges=0, says=_NOTHING
            )
            for status in (400, 401, 402, 403, 404, 405, 413, 415, 422)
        ),
        reviewed(
            "POST lost, account credit paid a part, or all",
            any_lost_and_charged,
            account={"credit_cents": one_of(625, 2625)},
            says=("cannot be determined", "{invoice}"),
        ),
        reviewed(
            "POST lost, not charged, a smaller invoice", LOST_AND_NOT_CHARGED, charges=0, story=_a_smaller_one
        ),
        *(
            reviewed(
                f"POST lost, then the history is {status} for good",
                one_of(LOST_AND_CHARGED),
                {"operation": "getInvoiceHistory", **_REFUSED, "status": status, "skip": 1, "times": None},
                says=("may have been sent",),
            )
            for status in (400, 403, 404)
        ),
        *(
            reviewed(
                f"status is {status} for good",
                {"operation": "checkTopupStatus", **_REFUSED, "status": status, "times": None},
                says=("{invoice}",),
            )
            for status in (400, 403, 404)
        ),
        reviewed(
            "everything is 401 after a lost response",
            LOST_AND_CHARGED,
            {"operation": "*", **_REFUSED, "status": 401, "skip": 3, "times": None},
            says=("may have been sent",),
        ),
        reviewed(
            "everything is 401 after the charge",
            post({"kind": "slow", "when": "after", "seconds": 0.0001}),
            {"operation": "*", **_REFUSED, "status": 401, "skip": 3, "times": None},
            says=("{invoice}",),
        ),
        reviewed(
            "balance is gone, with a guard",
            {"operation": "getCreditBalance", **_REFUSED, "status": 404, "times": None},
            charges=0,
            operator={"only_if_balance_below_cents": 1000},
        ),
        reviewed("payment is void", account={"topup_outcome": one_of("void", "uncollectible")}),
        reviewed(
            "payment is void, after a lost response",
            any_lost_and_charged,
            account={"topup_outcome": one_of("void", "uncollectible")},
        ),
        reviewed(
            "payment is void, after a lost response that nothing waits for",
            any_lost_and_charged,
            account={"topup_outcome": one_of("void", "uncollectible"), "settle_seconds": 0},
            operator={"wait_for_completion": False},
            says=("The card was not charged",),
        ),
        reviewed(
            "POST lost, the invoice is in another currency",
            any_lost_and_charged,
            account={"currency": "sek", "fee_percent": one_of(0.0, 100.0)},
            says=("due with another amount", "{invoice}"),
        ),
        reviewed(
            "card requires 3-D Secure",
            account={"topup_outcome": "requires_action"},
            operator={"timeout": 0.6},
            out_of_tries=True,
        ),
        reviewed("amount is out of limits", charges=0, account={"min_cents": 5000}),
        reviewed(
            "budget is used up",
            charges=0,
            before=lambda trial: trial.past_invoice(),
            operator={"budget_cents": 2600, "budget_period": "month"},
        ),
        reviewed("no card", charges=0, account={"default_payment_method": None}),
        reviewed(
            "credentials refused before the POST",
            {"operation": "*", **_REFUSED, "status": 401, "times": None},
            charges=0,
        ),
        Row(
            "credentials refused once after a lost response",
            (LOST_AND_CHARGED, history_refused),
            in_one_try=True,
        ),
        Row("balance is enough", ends="skipped", charges=0, operator={"only_if_balance_below_cents": 100}),
    ]


def _another_like_it(trial: Trial) -> Steps:
    task = trial.task()
    # Before the POST's time is up, so that the first search finds both.
    yield from together(task.run(), _once(trial.charges, lambda: trial.past_invoice(amount_cents=2500)))


def _a_smaller_one(trial: Trial) -> Steps:
    sent = lambda: trial.sandbox.requests("createTopup")  # noqa: E731
    yield from together(trial.task().run(), _once(sent, lambda: trial.past_invoice(amount_cents=1000)))


def _others_since(trial: Trial) -> Steps:
    def three_others() -> None:
        for _ in range(3):
            trial.past_invoice(amount_cents=9900)

    sent = lambda: trial.sandbox.requests("createTopup")  # noqa: E731
    yield from together(trial.task().run(), _once(sent, three_others))


def _once(seen: Callable[[], object], then: Callable[[], None]) -> Steps:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if seen():
            then()
            return
        yield from pause(0.05)


def longer_rows() -> list[Row]:
    """Clears, mapped tasks, several Dag runs."""
    lost = (one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),)
    in_both = {"tries": (1, 2)}
    return [
        Row("cleared after success", story=cleared),
        Row("cleared after success, store discarded", story=_cleared_and_discarded),
        Row("cleared after success, store discarded, retries raised", story=_cleared_with_more_retries),
        Row("cleared after a lost response", (any_lost_and_charged,), story=cleared),
        Row("cleared after a lost response, store discarded", lost, story=_cleared_and_discarded),
        Row(
            "cleared when the tries are used up",
            strikes=({"point": "POST topup body", "delay": between(0, 0.1), **in_both},),
            tries=2,
            story=cleared,
        ),
        Row(
            "cleared when the tries are used up, store discarded",
            strikes=({"point": "pushed", **in_both},),
            tries=2,
            story=_cleared_and_discarded,
        ),
        Row(
            "cleared after a declined card",
            account={"next_topup_outcome": "declined", "declined_leaves": one_of("nothing", "void")},
            story=cleared,
        ),
        Row(
            "cleared after refused credentials",
            (
                one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED),
                {"operation": "getInvoiceHistory", **_REFUSED, "status": 403, "skip": 1, "times": None},
            ),
            story=_fixed_and_cleared,
        ),
        Row("two mapped tasks", (), story=_mapped),
        Row(
            "two mapped tasks, responses lost",
            (post(LOST["reset"], when="after"), LOST_AND_CHARGED),
            story=_mapped,
        ),
        Row(
            "two mapped tasks, one POST not made",
            (one_of(LOST_AND_CHARGED, LOST_AND_NOT_CHARGED), LOST_AND_NOT_CHARGED),
            story=_mapped,
        ),
        Row(
            "two mapped tasks, killed",
            strikes=({"point": one_of("POST topup", "POST topup body", "pushed")},),
            story=_mapped,
        ),
        Row("two Dag runs", story=_two_runs),
        Row(
            "two Dag runs, the second between two tries of the first",
            (
                post({**_REFUSED, "status": 429}),
                {"operation": "getTopupEligibility", "kind": "hang", "skip": 1},
            ),
            story=_one_run_between_two_tries,
        ),
        Row("two Dag runs, responses lost", (any_lost_and_charged, any_lost_and_charged), story=_two_runs),
        Row("two Dag runs, second POST not made", ({**LOST_AND_NOT_CHARGED, "skip": 1},), story=_two_runs),
        Row(
            "two Dag runs, killed",
            strikes=({"point": one_of("POST topup", "POST topup body", "pushed")},),
            story=_two_runs,
        ),
    ]


def _fixed_and_cleared(trial: Trial) -> Steps:
    task = trial.task()
    yield from task.run()
    trial.sandbox.clear_faults()
    yield from task.clear()


def _cleared_and_discarded(trial: Trial) -> Steps:
    task = trial.task()
    yield from task.run()
    yield from task.clear(discard_store_too=True)


def _cleared_with_more_retries(trial: Trial) -> Steps:
    task = trial.task()
    yield from task.run()
    yield from task.clear(discard_store_too=True, more_retries=task.setting.randomness.choice([1, 2]))


def _one_run_between_two_tries(trial: Trial) -> Steps:
    first, second = trial.task("run 1"), trial.task("run 2")

    def after_a_try() -> Steps:
        while not first.endings:
            yield from pause(0.02)
        yield from second.run()

    yield from together(first.run(), after_a_try())


def _mapped(trial: Trial) -> Steps:
    small, large = trial.task("topup[0]", amount_cents=2500), trial.task("topup[1]", amount_cents=7000)
    yield from together(small.run(), large.run())


def _two_runs(trial: Trial) -> Steps:
    yield from trial.task("run 1").run()
    yield from trial.task("run 2").run()


def rows_with_anything() -> list[Row]:
    """Any lost response, with any death, with any failing reads, with any failing journal."""

    def any_post(r: Random) -> Plan:
        lost = dict(r.choice(list(LOST.values())))
        if r.random() < 0.3 and lost["kind"] != "slow":
            return post(lost, **LATE)
        return post(lost, when=r.choice(["before", "after"]))

    def any_read(r: Random) -> Plan:
        operation = r.choice(
            ["getInvoiceHistory", "checkTopupStatus", "getTopupEligibility", "getCreditBalance"]
        )
        kind = r.choice(["reset", "drop", "hang", "truncate", "garbage", "status"])
        return {"operation": operation, "kind": kind, "skip": r.randrange(4), "times": r.randrange(1, 4)}

    points = [
        "start",
        "resume",
        "succeeded",
        "connected",
        "POST topup",
        "POST topup body",
        "pushed",
        "GET invoice-history",
        "POST topup/status",
    ]
    death = {"point": one_of(*points), "nth": one_of(1, 1, 2, 3), "delay": one_of(0.0, 0.0, 0.01, 0.1, 0.5)}
    journal_points = [
        f"{verb}:{state}"
        for verb in ("write", "written")
        for state in ("started", "intent", "accepted", "completed", "not_charged")
    ]
    trouble = {
        "point": one_of("read", *journal_points),
        "act": one_of("raise", "raise", "kill"),
        "tries": one_of((1,), (2,), (1, 2)),
    }
    silent = {
        "point": one_of("delete", *(point for point in journal_points if point.startswith("write:"))),
        "act": one_of("lose", "late", "kill"),
        "tries": one_of((1,), (2,), (1, 2)),
    }
    # Not between the last check of the clock and the last byte of the POST: no client could help that.
    frozen = {
        "point": one_of(
            "start",
            "resume",
            "pushed",
            "succeeded",
            "delete",
            "GET invoice-history",
            "POST topup/status",
            *journal_points,
        ),
        "act": "freeze",
        "nth": one_of(1, 1, 2),
        "thaw": one_of("started", "ended"),
        "thaw_delay": between(0, 3),
    }
    return [
        Row("anything: responses and deaths", (any_post,), (death, {**death, "tries": (2,)}), tries=6),
        Row(
            "anything: responses, reads and deaths",
            (any_post, any_post, any_read, any_read),
            (death,),
            tries=8,
        ),
        Row(
            "anything: responses, journal and deaths",
            (any_post,),
            (trouble, {**death, "tries": (2,)}),
            tries=7,
        ),
        Row(
            "anything: responses and orphans",
            (any_post,),
            (frozen, {**frozen, "tries": (2,)}),
            tries=6,
        ),
        Row(
            "anything: all at once",
            (any_post, any_post, any_read),
            (frozen, trouble, {**death, "tries": (2, 3)}),
            tries=9,
        ),
        Row(
            "anything: responses, variables that fail silently and deaths",
            (any_post,),
            (silent, {**death, "tries": (2,)}),
            tries=7,
            store=False,
        ),
        Row(
            "anything: under way",
            (any_post,),
            (UNDER_WAY, {"point": "start", "delay": between(0, 6), "tries": (2, 3)}),
            tries=7,
        ),
    ]
