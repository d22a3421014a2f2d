"""What a row of the matrix is: which faults meet a top-up, and how it must end."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.faults.scheduler import Steps
    from tests.faults.trial import Trial

Plan = dict[str, Any]
Draw = Callable[[random.Random], Any]

# Shorter than the window by far: within it a late charge must appear.
WINDOW = 5.0
READ_TIMEOUT = 1.0
SEND_WITHIN = 1.0
TAKEOVER_MARGIN = 0.5
# A process that froze before its first record is given up later than this after its start.
MAX_START = 4.0


@dataclass(frozen=True)
class Mode:
    deferrable: bool
    has_store: bool

    def __str__(self) -> str:
        return f"{'deferred' if self.deferrable else 'waiting'}, {'store' if self.has_store else 'variables'}"


@dataclass(frozen=True)
class Row:
    """One kind of trial. Callables among the values of a plan draw a value from the trial's randomness.

    :param faults: arguments of the sandbox's faults.
    :param strikes: arguments of what befalls the workers.
    :param account: switches of the account.
    :param operator: arguments of the operator.
    :param ends: ``charged``: one charge, reported with its id; ``person``: a person must review it, or the
        user must act; ``skipped``: by the balance guard.
    :param charges: how many charges there are when it ends with a person.
    :param out_of_tries: it ends with a person because the tries are used up, not by an error without retry.
    :param in_one_try: no second try may be needed, unless the machine is too slow for the lab's short limits.
    :param beyond_promise: the charge is listed later than the window, so that it may be denied at first.
    :param says: what the last message must hold; ``{invoice}`` is the id of the charge's invoice.
    :param to_target: the task tops up to a balance; what is missing is its amount.
    :param trigger: why no trigger can wait: ``broken`` or ``missing`` (its connection), or ``fails`` (as a
        whole).
    :param store: only with the task state store (True), or only with Variables (False).
    :param deferrable: only deferrable (True), or only waiting in the worker (False).
    :param before: what is done to the sandbox first.
    :param story: how it goes, if it is more than one task of one Dag run.
    """

    name: str
    faults: tuple[Plan | Draw, ...] = ()
    strikes: tuple[Plan, ...] = ()
    account: Plan = field(default_factory=dict)
    operator: Plan = field(default_factory=dict)
    ends: Literal["charged", "person", "skipped"] = "charged"
    charges: int = 1
    out_of_tries: bool = False
    tries: int = 4
    in_one_try: bool = False
    beyond_promise: bool = False
    says: tuple[str, ...] = ()
    to_target: bool = False
    trigger: Any = None
    store: bool | None = None
    deferrable: bool | None = None
    triggerer_dies: tuple[Any, ...] = ()
    clock_offset: Any = 0.0
    before: Callable[[Trial], None] | None = None
    story: Callable[[Trial], Steps] | None = None

    def name_in(self, mode: Mode) -> str:
        return f"{self.name} [{mode}]"

    def fits(self, mode: Mode) -> bool:
        return self.store in (None, mode.has_store) and self.deferrable in (None, mode.deferrable)


def drawn(value: Any, randomness: random.Random) -> Any:
    """Return a plan with every callable in it replaced by what it draws."""
    if callable(value):
        return drawn(value(randomness), randomness)
    if isinstance(value, Mapping):
        return {key: drawn(each, randomness) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(drawn(each, randomness) for each in value)
    return value


def between(low: float, high: float) -> Draw:
    return lambda randomness: randomness.uniform(low, high)


def one_of(*options: Any) -> Draw:
    return lambda randomness: randomness.choice(options)


ANY_5XX = one_of(500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527)
_OK = '{"success": true, "errors": [], "messages": [], "result": %s}'

# How a response can be lost, so that it proves nothing.
LOST: dict[str, Plan] = {
    "reset": {"kind": "reset"},
    "dropped": {"kind": "drop"},
    "hanging": {"kind": "hang"},
    "cut short": {"kind": "truncate"},
    "trickling": {"kind": "slow", "seconds": between(0.05, 0.3)},
    "with a trickling head": {"kind": "slow", "part": "head", "seconds": between(0.05, 0.3)},
    "returning a redirect": {"kind": "redirect", "status": one_of(301, 302, 303, 307, 308)},
    "returning 5xx in JSON": {"kind": "status", "status": ANY_5XX},
    "returning 5xx in HTML": {"kind": "status", "status": ANY_5XX, "html": True},
    "returning 4xx in HTML": {"kind": "status", "status": one_of(400, 403, 404, 409, 429), "html": True},
    "returning half a body": {"kind": "garbage", "status": one_of(200, 201)},
    "returning nothing": {"kind": "garbage", "body": "", "status": one_of(200, 204, 500)},
    "returning one key twice": {
        "kind": "garbage",
        "body": _OK % '{"payment_intent_id": "in_1", "payment_intent_id": "in_2"}',
    },
    "returning other types": {
        "kind": "garbage",
        "body": one_of(
            _OK % "[]",
            _OK % "null",
            _OK % '{"payment_intent_id": 1}',
            _OK % '{"payment_intent_id": ""}',
            _OK % "{}",
            "[]",
            '"done"',
            "NaN",
        ),
    },
    "returning far too much": {"kind": "garbage", "size": 5 * 1024 * 1024},
    "returning 200 without success": {
        "kind": "garbage",
        "body": '{"success": false, "errors": [{"code": 1, "message": "no"}], "result": null}',
    },
}


def post(plan: Plan, **more: Any) -> Plan:
    return {"operation": "createTopup", **plan, **more}


LATE = {"when": "late", "seconds": between(0.1, 0.8)}
LOST_AND_CHARGED = post({"kind": "drop", "when": "after"})
LOST_AND_NOT_CHARGED = post({"kind": "drop"})


def any_lost_and_charged(randomness: random.Random) -> Plan:
    return post(randomness.choice(list(LOST.values())), when="after")
