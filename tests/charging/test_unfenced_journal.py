"""Taking over in a store that refuses no write: what each try reads, writes and waits for."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_cfbilling.charging import unfenced_journal
from airflow_provider_cfbilling.charging.endings import RecordError, SupersededError
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record
from airflow_provider_cfbilling.charging.protocol import SEND_WITHIN_SECONDS, TAKEOVER_MARGIN_SECONDS
from airflow_provider_cfbilling.charging.unfenced_journal import MAX_GAP, MAX_START_SECONDS, UnfencedJournal
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import AMOUNT_CENTS, Task, task_in

STARTED = Record("started")
INTENT = ChargeIntent("0" * 32, 2500, at=1.0, written_at=1.0)
SENT = Record("intent", INTENT, INTENT, charge_requests=1)


class Texts:
    """A store that does what is requested, or fails as configured.

    :ivar before_get: called with the number before each read.
    """

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.calls: list[tuple[str, int]] = []
        self.before_get: Callable[[int], object] = lambda _: None
        self.loses_writes = False
        self.keeps: set[int] = set()

    def get(self, number: int) -> str | None:
        self.before_get(number)
        self.calls.append(("get", number))
        return self.texts.get(number)

    def set(self, number: int, text: str) -> None:
        self.calls.append(("set", number))
        if not self.loses_writes:
            self.texts[number] = text

    def delete(self, number: int) -> None:
        self.calls.append(("delete", number))
        if number not in self.keeps:
            self.texts.pop(number, None)

    def states(self) -> dict[int, str]:
        return {number: json.loads(text)["state"] for number, text in self.texts.items()}


@pytest.fixture
def texts() -> Texts:
    return Texts()


def journal(texts: Texts, number: int, slept: list[float] | None = None, **more: Any) -> UnfencedJournal:
    return UnfencedJournal(texts, number, sleep=([] if slept is None else slept).append, **more)


# beginning


@pytest.mark.parametrize("number", [0, 1])
def test_first_try_begins_at_once(texts: Texts, number: int):
    slept: list[float] = []
    assert journal(texts, number, slept).begin(STARTED, 6) == STARTED
    assert (texts.states(), slept) == ({number: "started"}, [])


def test_later_try_writes_first_then_waits_then_reads(texts: Texts):
    journal(texts, 1).begin(STARTED, 6)
    seen: list[Any] = []

    def sleep(seconds: float) -> None:
        seen.append((seconds, texts.states()))
        texts.texts[1] = json.dumps(SENT.to_json())  # an orphan's last chance

    assert UnfencedJournal(texts, 2, sleep=sleep).begin(STARTED, 6) == SENT
    assert seen == [(6, {1: "started", 2: "started"})]


def test_newest_record_beyond_started_is_where_a_try_goes_on(texts: Texts):
    accepted = Record("accepted", INTENT, INTENT, charge_requests=1, topup={"payment_intent_id": "in_1"})
    journal(texts, 1)._set(SENT)
    journal(texts, 2)._set(accepted)
    journal(texts, 3)._set(STARTED)
    assert journal(texts, 5).begin(STARTED, 0) == accepted


def test_try_that_runs_again_goes_on_from_its_own_record(texts: Texts):
    """So does `airflow tasks test`, whose try always has the number 0."""
    journal(texts, 0)._set(SENT)
    slept: list[float] = []
    assert journal(texts, 0, slept).begin(STARTED, 6) == SENT
    assert slept == [6]


CLEARED = Record("started", cleared=True)


def test_earlier_tries_that_only_started_have_sent_nothing(texts: Texts):
    journal(texts, 1).begin(STARTED, 6)
    assert journal(texts, 2).begin(STARTED, 6) == STARTED
    for number in (3, 4):  # cleared after the second one
        assert journal(texts, number, cleared_after=lambda: 2).begin(CLEARED, 6) == STARTED
        assert texts.states()[number] == "started"
    assert journal(texts, 5, cleared_after=lambda: 4).begin(CLEARED, 6) == STARTED  # and again


def test_records_discarded_by_a_clear_stay_discarded(texts: Texts):
    assert journal(texts, 2, cleared_after=lambda: 1).begin(CLEARED, 6).cleared
    assert journal(texts, 3, cleared_after=lambda: 1).begin(CLEARED, 6).cleared
    assert journal(texts, 4, cleared_after=lambda: 3).begin(CLEARED, 6).cleared


def test_record_of_an_orphan_does_not_hide_a_later_success(texts: Texts):
    """The second try has completed, and then the first one was woken and has written its start."""
    journal(texts, 1).begin(STARTED, 6)
    assert journal(texts, 3, cleared_after=lambda: 2).begin(CLEARED, 6).cleared


def test_earlier_try_that_succeeds_while_the_later_one_waits_is_known(texts: Texts):
    """Airflow 2 takes the success of a try that it has given up."""
    earlier, successes = journal(texts, 1), []
    earlier.begin(STARTED, 6)

    def sleep(seconds: float) -> None:
        successes.append(1)
        earlier.forget()

    later = UnfencedJournal(texts, 2, sleep=sleep, cleared_after=lambda: max(successes, default=None))
    assert later.begin(STARTED, 6).cleared
    assert json.loads(texts.texts[2])["cleared"]


def test_record_that_a_try_goes_on_from_becomes_its_own(texts: Texts):
    """A removal that ends halfway leaves it."""
    journal(texts, 1)._set(SENT)
    this = journal(texts, 2)
    this.begin(STARTED, 6)
    texts.keeps = {2}
    with pytest.raises(OSError, match="cannot be removed"):
        this.forget()
    assert journal(texts, 3).begin(STARTED, 6) == SENT


def test_start_that_is_not_kept_ends_the_try(texts: Texts):
    texts.loses_writes = True
    with pytest.raises(OSError, match="not what is read back"):
        journal(texts, 1).begin(STARTED, 6)


@pytest.mark.parametrize("late", [-1, 1])
def test_try_that_comes_too_late_to_its_first_step_stops(
    texts: Texts, monkeypatch: pytest.MonkeyPatch, late: int
):
    monkeypatch.setattr(unfenced_journal.time, "time", lambda: 1000.0)
    this = journal(texts, 1, try_started_at=1000.0 - MAX_START_SECONDS - late)
    if late < 0:
        assert this.begin(STARTED, 6) == STARTED
    else:
        with pytest.raises(SupersededError, match="It does not charge"):
            this.begin(STARTED, 6)


@pytest.mark.parametrize("fails", range(8))
def test_read_that_fails_without_a_word_hides_no_earlier_charge(texts: Texts, fails: int):
    """Airflow returns the default for a Variable that it cannot read."""
    journal(texts, 1)._set(SENT)
    flaky = Flaky(texts, fails)
    try:
        found = UnfencedJournal(flaky, 2, sleep=lambda _: None).begin(STARTED, 6)
    except (OSError, SupersededError) as error:
        assert "read" in str(error)  # noqa: PT017 (both are right)
    else:
        assert found == SENT


@pytest.mark.parametrize("fails", range(8))
def test_read_that_fails_without_a_word_hides_no_later_try(texts: Texts, fails: int):
    for number in (1, 2):
        journal(texts, number).begin(STARTED, 6)
    with pytest.raises(SupersededError):
        UnfencedJournal(Flaky(texts, fails), 1)._check_not_superseded()


class Flaky(Texts):
    """A store of which one read finds nothing."""

    def __init__(self, texts: Texts, fails: int) -> None:
        super().__init__()
        self.texts = texts.texts
        self._left = fails

    def get(self, number: int) -> str | None:
        self._left -= 1
        if self._left == -1:
            return None
        return super().get(number)


# before sending


@pytest.mark.parametrize("gap", range(1, MAX_GAP + 1))
def test_try_stops_once_a_later_one_has_begun(texts: Texts, gap: int):
    this = journal(texts, 1)
    this.begin(STARTED, 6)
    this._check_not_superseded()
    journal(texts, 1 + gap).begin(STARTED, 6)
    with pytest.raises(SupersededError, match=f"Try {1 + gap} of this task has begun"):
        this._check_not_superseded()


def test_try_stops_once_a_later_one_has_ended_and_removed_its_record(texts: Texts):
    this, later = journal(texts, 1), journal(texts, 2)
    this.begin(STARTED, 6)
    later.begin(STARTED, 6)
    later.forget()
    assert texts.texts == {}
    with pytest.raises(SupersededError, match="has been removed"):
        this._check_not_superseded()


@pytest.mark.parametrize("reads", range(2 * MAX_GAP + 2))
def test_try_stops_whenever_a_later_one_ends_while_it_checks(texts: Texts, reads: int):
    """A later try that ends removes the earlier records first, and a check reads them last."""
    this, later = journal(texts, 1), journal(texts, 2)
    this.begin(STARTED, 6)
    later.begin(STARTED, 6)
    left = [reads]

    def ends(_: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            texts.before_get = lambda _: None
            later.forget()

    texts.before_get = ends
    with pytest.raises(SupersededError):
        this._check_not_superseded()


# removing


def test_earlier_records_are_removed_before_a_trys_own(texts: Texts):
    for number in (1, 3):
        journal(texts, number)._set(STARTED)
    texts.calls.clear()
    journal(texts, 3).forget()
    assert [number for call, number in texts.calls if call == "delete"] == [1, 2, 3]
    assert texts.texts == {}


def test_own_record_stays_as_long_as_an_earlier_one_does(texts: Texts):
    for number in (1, 2):
        journal(texts, number)._set(STARTED)
    texts.keeps = {1}
    with pytest.raises(OSError, match="the record of try 1 cannot be removed"):
        journal(texts, 2).forget()
    assert set(texts.texts) == {1, 2}


# the whole top-up


@pytest.fixture
def task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    with task_in(sandbox, monkeypatch) as task:
        yield task


def run_try(task: Task, texts: Texts, number: int, **arguments: Any) -> dict[str, Any]:
    task.journal = UnfencedJournal(texts, number, sleep=task.passes)
    return task.run(**arguments)


def test_retry_of_a_try_that_failed_before_its_charge_costs_seconds(
    sandbox: Sandbox, task: Task, texts: Texts
):
    sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now)  # of another task of this Dag run
    sandbox.fault("getInvoiceHistory", "status", status=503)
    with pytest.raises(Exception, match="Nothing was charged"):
        run_try(task, texts, 1)
    began = task.time.now
    assert run_try(task, texts, 2, wait_seconds=None)["payment_intent_id"] == task.charged()
    assert task.time.now - began < SEND_WITHIN_SECONDS + TAKEOVER_MARGIN_SECONDS + 5


def test_first_try_that_died_before_its_record_costs_seconds(sandbox: Sandbox, task: Task, texts: Texts):
    other = sandbox.add_invoice(AMOUNT_CENTS, created=task.time.now + 1).id
    began = task.time.now
    result = run_try(task, texts, 2, wait_seconds=None)
    assert result["payment_intent_id"] == task.charged() != other
    assert task.time.now - began < SEND_WITHIN_SECONDS + TAKEOVER_MARGIN_SECONDS + 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_retry_of_a_try_that_was_killed_in_its_charge_finds_out(
    sandbox: Sandbox, task: Task, texts: Texts, when: Any
):
    sandbox.fault("createTopup", "reset", when)
    run_try(task, texts, 1, until=lambda progress: progress.phase == "reconcile")
    assert run_try(task, texts, 2, wait_seconds=None)["payment_intent_id"] == task.charged()


def test_intent_that_is_not_kept_is_not_sent(sandbox: Sandbox, task: Task, texts: Texts):
    task.journal = UnfencedJournal(texts, 1)
    protocol = task.protocol()
    progress = protocol.begin(cleared=False, began_at=0)
    texts.loses_writes = True
    with pytest.raises(RecordError, match="The charge was not sent"):
        protocol.advance(progress)
    assert task.posts() == 0


def test_try_frozen_before_its_charge_sends_nothing_later(sandbox: Sandbox, task: Task, texts: Texts):
    """The record that it writes then stands where the other one has removed it."""
    frozen = UnfencedJournal(texts, 1)
    task.journal = frozen
    protocol = task.protocol()
    progress = protocol.begin(cleared=False, began_at=0)
    write = frozen._set

    def freezes(record: Record) -> None:
        if record.state == "intent":
            run_try(task, texts, 2, wait_seconds=None)
            assert isinstance(task.journal, UnfencedJournal)
            task.journal.forget()
        write(record)

    frozen._set = freezes  # type: ignore[method-assign]
    with pytest.raises(SupersededError, match="was held up"):
        protocol.advance(progress)
    assert task.posts() == 1


def test_try_frozen_while_giving_a_charge_up_sends_nothing_later(sandbox: Sandbox, task: Task, texts: Texts):
    sandbox.configure(credit_cents=200)  # no invoice that it would recognize
    sandbox.fault("createTopup", "reset")
    frozen = UnfencedJournal(texts, 1)
    set_record = frozen._set

    def freezes(record: Record) -> None:
        if record.state == "not_charged":
            run_try(task, texts, 2, wait_seconds=None)
            assert isinstance(task.journal, UnfencedJournal)
            task.journal.forget()
            task.journal = frozen
        set_record(record)

    frozen._set = freezes  # type: ignore[method-assign]
    task.journal = frozen
    with pytest.raises(SupersededError, match="was held up"):
        task.run()
    assert len(sandbox.charges()) == 1
