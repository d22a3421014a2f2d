"""One trial: what is done, and what the ledger says of it."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from airflow_provider_cfbilling.sandbox import SandboxClient
from airflow_provider_cfbilling.sandbox.models import Charge
from tests.faults.rows import READ_TIMEOUT, WINDOW, Mode, Row, drawn
from tests.faults.scheduler import Ending, Setting, Task
from tests.faults.worker import Strike

Judgement = Literal["double", "false success", "false failure", "gave up", "right", "needs a person"]
JUDGEMENTS: tuple[Judgement, ...] = (
    "double",
    "false success",
    "false failure",
    "gave up",
    "right",
    "needs a person",
)
RIGHT = ("right", "needs a person")

_MAX_TRIAL = 300.0  # seconds
_STEP = 0.01  # seconds
_SAYS_WHETHER_MONEY_MOVED = (
    "Nothing was charged",
    "not charged",
    "may have been sent",
    "cannot be determined",
    "accepted top-up",
)


@dataclass(frozen=True)
class Verdict:
    """What became of one trial.

    :param met: whether what was planned to go wrong has come to pass.
    """

    row: str
    mode: str
    seed: int
    judgement: Judgement | Literal["broken"]
    why: str = ""
    met: bool = False

    @property
    def name(self) -> str:
        return f"{self.row} [{self.mode}]"


class Trial:
    """Runs one row in one mode, with everything that varies drawn from the seed."""

    def __init__(self, sandbox: SandboxClient, row: Row, mode: Mode, seed: int) -> None:
        self.sandbox = sandbox
        self.row = row
        self.mode = mode
        self._seed = seed
        self._randomness = random.Random(f"{row.name_in(mode)} {seed}")
        self.account_id = f"{self._randomness.getrandbits(128):032x}"
        self.clock_offset = self._draw(row.clock_offset) or self._randomness.uniform(-0.5, 0.5)
        self._tasks: list[Task] = []
        self._lies: list[str] = []
        self._last_landing = 0.0
        self._longest_step = 0.0

    def judge(self) -> Verdict:
        """Run it to its end, and hold what the tasks said against the ledger."""
        began = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="cfbilling-trial-"))
        try:
            self._setting = self._prepared(folder)
            steps = self.row.story(self) if self.row.story else self.task().run()
            for _ in steps:
                step_began = time.monotonic()
                if step_began - began > _MAX_TRIAL:
                    break
                time.sleep(_STEP)
                self._longest_step = max(self._longest_step, time.monotonic() - step_began)
            for task in self._tasks:
                task.end()
            time.sleep(self._last_landing)
            met = any(task.struck for task in self._tasks) or any(r.fault for r in self.sandbox.requests())
            judgement, why = self._judgement(self.charges())
            if judgement not in RIGHT:
                why = f"{why}\n{self._story_of(folder)}"
        finally:
            for task in self._tasks:
                task.end()
            shutil.rmtree(folder, ignore_errors=True)
        return Verdict(self.row.name, str(self.mode), self._seed, judgement, why, met)

    def task(self, name: str = "topup", *, amount_cents: int = 2500) -> Task:
        """A task of its own Dag run, or of one that its name distinguishes."""
        amount: dict[str, Any] = {"amount_cents": amount_cents}
        if self.row.to_target:
            amount = {"target_balance_cents": self.sandbox.balance_cents(self.account_id) + amount_cents}
        operator = {
            **amount,
            "deferrable": self.mode.deferrable,
            "poll_interval": self._randomness.uniform(0.1, 0.4),
            "timeout": 15.0,
            "unknown_outcome_window": WINDOW,
            **self._draw(self.row.operator),
        }
        strikes = tuple(Strike(**self._draw(strike)) for strike in self.row.strikes)
        task = Task(name, self._setting, operator, strikes, self.row.tries, self._hear)
        self._tasks.append(task)
        return task

    def charges(self) -> list[Charge]:
        return self.sandbox.charges(self.account_id)

    def past_invoice(self, amount_cents: int = 3000, **details: object) -> None:
        self.sandbox.add_invoice(amount_cents, self.account_id, **details)

    def _prepared(self, folder: Path) -> Setting:
        self.sandbox.reset()
        self.sandbox.configure_server(clock_offset_seconds=self.clock_offset)
        account = {"settle_seconds": self._randomness.uniform(0.05, 0.6), **self._draw(self.row.account)}
        self.sandbox.configure(self.account_id, **account)
        if self.row.before:
            self.row.before(self)
        for plan in self.row.faults:
            fault = self._draw(plan)
            if fault.get("when") == "late":
                self._last_landing = READ_TIMEOUT + fault["seconds"] + 0.2
            self.sandbox.fault(**fault)
        limits = f"connect_timeout=0.8&read_timeout={READ_TIMEOUT}&max_attempts=3"
        return Setting(
            folder=folder,
            connection_uri=f"{self.sandbox.connection_uri(self.account_id)}?{limits}",
            has_store=self.mode.has_store,
            randomness=self._randomness,
            runs_after=self.mode.has_store or self._randomness.random() < 0.5,
            triggerer_dies=self._draw(self.row.triggerer_dies),
            trigger=self._draw(self.row.trigger),
        )

    def _draw(self, plan: Any) -> Any:
        return drawn(plan, self._randomness)

    def _hear(self, task: Task, ending: Ending) -> None:
        """Catch a lie as it is reported. Meanwhile credits are spent, and more is missing to a target."""
        if self.row.to_target:
            spent = self._randomness.uniform(0, 900)
            balance_cents = self.sandbox.balance_cents(self.account_id) - spent
            self.sandbox.configure(self.account_id, balance_cents=balance_cents)
        message = ending.get("message", "")
        denies = "Nothing was charged" in message and not self.row.beyond_promise
        if denies and self._charges_of(task, self.charges()):
            self._lies.append(f"{task.name} said that nothing was charged: {message}")
        sent = len(self._tasks) == 1 and self.sandbox.requests("createTopup")
        silent = not any(words in message for words in _SAYS_WHETHER_MONEY_MOVED)
        if sent and silent and ending["ended"] == "failed for good":
            self._lies.append(f"{task.name} does not say whether money moved: {message}")

    def _charges_of(self, task: Task, charges: list[Charge]) -> list[Charge]:
        amount_cents = task.operator.get("amount_cents")  # to a target every amount may be right
        return [charge for charge in charges if amount_cents in (None, charge.amount_cents)]

    def _judgement(self, charges: list[Charge]) -> tuple[Judgement, str]:
        for amount_cents, wanted in Counter(t.operator.get("amount_cents") for t in self._tasks).items():
            made = [charge for charge in charges if amount_cents in (None, charge.amount_cents)]
            if len(made) > wanted:
                return "double", f"{wanted} charge(s) of {amount_cents} wanted, {len(made)} made"
        claimed = [task.ending["result"]["payment_intent_id"] for task in self._tasks if _succeeded(task)]
        if len(set(claimed)) != len(claimed):
            return "false success", "two tasks claim one charge"
        for task in self._tasks:
            for ending in task.endings:
                if ending["ended"] == "success" and (wrong := self._wrong(task, ending["result"], charges)):
                    return "false success", wrong
        if self._lies:
            return "false failure", self._lies[0]
        return self._as_expected(charges)

    def _wrong(self, task: Task, result: dict[str, Any], charges: list[Charge]) -> str:
        """Say what is wrong with a reported success."""
        mine = {charge.invoice_id: charge for charge in self._charges_of(task, charges)}
        charge = mine.get(result["payment_intent_id"])
        waits = task.operator.get("wait_for_completion", True)
        if charge is None:
            return f"no charge {result['payment_intent_id']}"
        if result["status"] != ("completed" if waits else "pending") or (waits and charge.status != "paid"):
            return f"reported as {result['status']}, and it is {charge.status}"
        unknown = self.row.to_target and result["outcome"] == "adopted" and result["amount_cents"] is None
        reported = (charge.amount_cents if unknown else result["amount_cents"], result["account_id"])
        if reported != (charge.amount_cents, charge.account_id):
            return f"reported {result}, charged {charge}"
        return ""

    def _as_expected(self, charges: list[Charge]) -> tuple[Judgement, str]:
        endings = [task.ending["ended"] for task in self._tasks]
        if self.row.ends == "charged":
            for task in self._tasks:
                if not _succeeded(task):
                    found = bool(self._charges_of(task, charges))
                    if not found and self._takes_for_its_own(task, charges):
                        return "needs a person", ""
                    return "false failure" if found else "gave up", f"it ended: {task.ending}"
                if self.row.in_one_try and len(task.endings) > 1 and not self._machine_is_slow():
                    return "gave up", "a second try was needed"
            return "right", ""
        expected = "skipped" if self.row.ends == "skipped" else "failed for good"
        if self.row.out_of_tries:
            expected = "failed"
        if endings != [expected] or len(charges) != self.row.charges:
            judgement: Judgement = "false success" if _succeeded(self._tasks[0]) else "gave up"
            return judgement, f"{expected} expected, with {self.row.charges} charge(s); it ended: {endings}"
        message = self._tasks[0].ending.get("message", "")
        for words in self.row.says:
            wanted = words.format(invoice=charges[0].invoice_id) if charges else words
            # A machine that is too slow for the lab's limits loses the response to an accepted charge.
            if wanted not in message and "may have been sent" not in message:
                return "false failure", f"does not say {wanted!r}: {message}"
        return ("right" if expected == "skipped" else "needs a person"), ""

    def _takes_for_its_own(self, task: Task, charges: list[Charge]) -> bool:
        """Return whether a task leaves another's charge to a person: it may be its own."""
        said = task.ending.get("message", "")
        return "due with another amount" in said and any(charge.invoice_id in said for charge in charges)

    def _machine_is_slow(self) -> bool:
        """Whether the lab's limits of a second or so are none that a process can keep now."""
        crowded = os.getloadavg()[0] > 4 * (os.cpu_count() or 1)
        return crowded or self._longest_step > _STEP + 0.2

    def _story_of(self, folder: Path) -> str:
        """Return all that is known of a trial that is off."""
        lines = [
            f"{task.name} try {n}: {ending}"
            for task in self._tasks
            for n, ending in enumerate(task.endings, 1)
        ]
        lines += [f"strikes {task.strikes}" for task in self._tasks]
        lines += [f"{charge}" for charge in self.charges()]
        lines += [f"{r.at:.2f} {r.operation} {r.status} {r.fault or ''}" for r in self.sandbox.requests()]
        log = folder / "log"
        lines += log.read_text(errors="replace").splitlines()[-60:] if log.exists() else []
        return "\n".join(f"    {line}" for line in lines)


def _succeeded(task: Task) -> bool:
    return bool(task.ending["ended"] == "success")
