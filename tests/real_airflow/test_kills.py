"""Kills what can be killed in the middle of a top-up: the card is charged once, and no one has to help.

What the sandbox has charged is the judge; that it is one charge, and that the task's results name it, is
checked at every story's end.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.real_airflow import processes
from tests.real_airflow.deployment import HAS_API_SERVER, HAS_TASK_STATE_STORE, an_airflow_can_run_here
from tests.real_airflow.topups import START_TIMEOUT, Setup, SideBySide, TopUp

pytestmark = an_airflow_can_run_here(seconds=480)

# How a try ends that finds out what an earlier one has done. Before 3.0, an orphan can end the task itself,
# and Airflow kills tries of its own accord when the processors are busy.
CHARGED, ADOPTED, RESUMED, COMPLETED = {"charged"}, {"adopted"}, {"resumed"}, {"already_completed"}
if not HAS_API_SERVER:
    CHARGED = ADOPTED = RESUMED = {"charged", "adopted", "resumed", "already_completed"}
if not HAS_TASK_STATE_STORE:  # the record has gone with the success, and there is only the history
    COMPLETED = {"adopted"}

side_by_side = SideBySide()


@pytest.fixture(scope="module")
def played() -> Iterator[None]:
    with ExitStack() as stack:
        side_by_side.play(stack)
        yield


@side_by_side.story(Setup(hangs="createTopup", when="after"))
def test_task_killed_in_a_post_that_charges(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.kill_task(task)
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_task_killed_in_a_post_that_does_not_charge(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.kill_task(task)
    finished = top_up.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 2


@side_by_side.story(Setup(hangs="createTopup", when="late"))
def test_task_killed_in_a_post_that_charges_later(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.kill_task(task)
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="checkTopupStatus"))
def test_task_killed_after_the_response(top_up: TopUp) -> None:
    top_up.start()
    top_up.wait_until("it polls for the settlement", lambda: top_up.count("checkTopupStatus"))
    top_up.kill_task(top_up.process())
    finished = top_up.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=15))
def test_task_killed_during_the_wait(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_it_waits()
    top_up.kill_task(task)
    finished = top_up.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="after"))
def test_supervisor_killed_in_a_post_that_charges(top_up: TopUp) -> None:
    top_up.start()
    orphan = top_up.until_charge_hangs()
    top_up.strike(orphan.parent)
    top_up.until_ended(orphan.parent)
    assert processes.is_alive(orphan.pid)
    assert top_up.charge_hangs()
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_supervisor_killed_in_a_post_that_does_not_charge(top_up: TopUp) -> None:
    top_up.start()
    orphan = top_up.until_charge_hangs()
    top_up.strike(orphan.parent)
    top_up.until_ended(orphan.parent)
    assert processes.is_alive(orphan.pid)
    assert top_up.charge_hangs()
    finished = top_up.finish()
    assert finished.posts == 2


@side_by_side.story(Setup(settle_seconds=45))
def test_supervisor_killed_during_the_wait(top_up: TopUp) -> None:
    top_up.start()
    orphan = top_up.until_it_waits()
    top_up.strike(orphan.parent)
    if HAS_API_SERVER:  # without one, the orphan can end the task itself, and then there is no next try
        top_up.process(other_than=orphan.pid)
        assert processes.is_alive(orphan.pid)
    finished = top_up.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="late"))
def test_both_killed_in_a_post_that_charges_later(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.strike(task.parent, task.pid)
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=15))
def test_both_killed_during_the_wait(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_it_waits()
    top_up.strike(task.parent, task.pid)
    finished = top_up.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_both_frozen_in_a_post_and_woken_after_the_next_try(top_up: TopUp) -> None:
    """A machine that pauses: the next try takes over, and charges, while this one can do nothing."""
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.freeze(task.parent, task.pid)
    finished = top_up.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 2
    top_up.wake(task.parent, task.pid)
    top_up.until_ended(task.pid)
    assert len(top_up.sandbox.charges()) == 1
    assert top_up.count("createTopup") == 2
    assert top_up.airflow.run_state(top_up.name) == "success"


@side_by_side.story(Setup(hangs="createTopup", post_seconds=40, execution_timeout_seconds=20))
def test_execution_timeout_in_the_post(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.until_ended(task.pid)
    top_up.struck()
    assert top_up.charge_hangs()
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", post_seconds=15, needs_api_server=True))
def test_marked_failed_in_the_post_and_cleared(top_up: TopUp) -> None:
    top_up.start()
    task = top_up.until_charge_hangs()
    top_up.airflow.mark_failed(top_up.name)
    top_up.until_ended(task.pid)
    assert top_up.charge_hangs()
    top_up.until_run_failed()
    top_up.airflow.clear(top_up.name)
    top_up.struck()
    finished = top_up.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=20, deferrable=True))
def test_triggerer_killed_while_the_top_up_waits(top_up: TopUp) -> None:
    top_up.start()
    top_up.wait_until("it is deferred", lambda: top_up.airflow.task(top_up.name).state == "deferred")
    polls = top_up.count("checkTopupStatus")
    top_up.wait_until("the trigger polls", lambda: top_up.count("checkTopupStatus") > polls)
    with top_up.airflow.without("triggerer"):
        top_up.wait_until("the charge settles", lambda: top_up.sandbox.charges()[0].status == "paid")
    top_up.struck()
    finished = top_up.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 1


@side_by_side.story(Setup())
def test_finished_task_cleared(top_up: TopUp) -> None:
    top_up.start()
    top_up.finish()
    requests = top_up.count()
    top_up.airflow.clear(top_up.name)
    top_up.struck()
    finished = top_up.finish()
    assert finished.tries > 1
    assert finished.posts == 1
    assert finished.outcome in COMPLETED
    assert top_up.count() == requests or not HAS_TASK_STATE_STORE


one_waits = threading.Barrier(2)
both_went_on = threading.Barrier(2)


@side_by_side.story(Setup(hangs="createTopup", post_seconds=10, retries=6, alone=True, needs_api_server=True))
def test_api_server_down_during_the_post(top_up: TopUp) -> None:
    one_waits.wait(START_TIMEOUT)
    top_up.start()
    top_up.until_charge_hangs()
    searches = top_up.count("getInvoiceHistory")
    with top_up.airflow.without("api-server"):
        assert top_up.charge_hangs()
        top_up.wait_until("it searches for its charge", lambda: top_up.count("getInvoiceHistory") > searches)
        both_went_on.wait(START_TIMEOUT)
    top_up.struck()
    finished = top_up.finish()
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=60, retries=6, alone=True, needs_api_server=True))
def test_api_server_down_during_the_wait(top_up: TopUp) -> None:
    top_up.start()
    top_up.until_it_waits()
    one_waits.wait(START_TIMEOUT)
    top_up.wait_until("the API server is down", lambda: not top_up.airflow.runs("api-server"))
    polls = top_up.count("checkTopupStatus")
    top_up.wait_until("it goes on", lambda: top_up.count("checkTopupStatus") > polls + 4)
    both_went_on.wait(START_TIMEOUT)
    top_up.struck()
    finished = top_up.finish()
    assert finished.posts == 1


def test_nothing_is_left_and_nothing_was_charged_since(played: None) -> None:
    assert side_by_side.charged_since() == {}
    assert side_by_side.records() == []


def test_each_end_is_counted_by_its_outcome(played: None) -> None:
    outcomes = side_by_side.outcomes()
    counted = {outcome: side_by_side.counters.count(f"cfbilling.topup.{outcome}") for outcome in outcomes}
    assert outcomes
    # An orphan that ends well is counted too, though what it returns is discarded.
    assert all(counted[outcome] >= number for outcome, number in outcomes.items()), counted
