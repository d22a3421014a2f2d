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
from tests.real_airflow.topups import START_TIMEOUT, Setup, SideBySide, Topup

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
def test_task_killed_in_a_post_that_charges(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.kill_task(task)
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_task_killed_in_a_post_that_does_not_charge(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.kill_task(task)
    finished = topup.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 2


@side_by_side.story(Setup(hangs="createTopup", when="late"))
def test_task_killed_in_a_post_that_charges_later(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.kill_task(task)
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="checkTopupStatus"))
def test_task_killed_after_the_response(topup: Topup) -> None:
    topup.start()
    topup.wait_until("it polls for the settlement", lambda: topup.count("checkTopupStatus"))
    topup.kill_task(topup.process())
    finished = topup.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=15))
def test_task_killed_during_the_wait(topup: Topup) -> None:
    topup.start()
    task = topup.until_it_waits()
    topup.kill_task(task)
    finished = topup.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="after"))
def test_supervisor_killed_in_a_post_that_charges(topup: Topup) -> None:
    topup.start()
    orphan = topup.until_charge_hangs()
    topup.strike(orphan.parent)
    topup.until_ended(orphan.parent)
    assert processes.is_alive(orphan.pid)
    assert topup.charge_hangs()
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_supervisor_killed_in_a_post_that_does_not_charge(topup: Topup) -> None:
    topup.start()
    orphan = topup.until_charge_hangs()
    topup.strike(orphan.parent)
    topup.until_ended(orphan.parent)
    assert processes.is_alive(orphan.pid)
    assert topup.charge_hangs()
    finished = topup.finish()
    assert finished.posts == 2


@side_by_side.story(Setup(settle_seconds=45))
def test_supervisor_killed_during_the_wait(topup: Topup) -> None:
    topup.start()
    orphan = topup.until_it_waits()
    topup.strike(orphan.parent)
    if HAS_API_SERVER:  # without one, the orphan can end the task itself, and then there is no next try
        topup.process(other_than=orphan.pid)
        assert processes.is_alive(orphan.pid)
    finished = topup.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="late"))
def test_both_killed_in_a_post_that_charges_later(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.strike(task.parent, task.pid)
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=15))
def test_both_killed_during_the_wait(topup: Topup) -> None:
    topup.start()
    task = topup.until_it_waits()
    topup.strike(task.parent, task.pid)
    finished = topup.finish()
    assert finished.outcome in RESUMED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", when="before"))
def test_both_frozen_in_a_post_and_woken_after_the_next_try(topup: Topup) -> None:
    """A machine that pauses: the next try takes over, and charges, while this one can do nothing."""
    topup.start()
    task = topup.until_charge_hangs()
    topup.freeze(task.parent, task.pid)
    finished = topup.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 2
    topup.wake(task.parent, task.pid)
    topup.until_ended(task.pid)
    assert len(topup.sandbox.charges()) == 1
    assert topup.count("createTopup") == 2
    assert topup.airflow.run_state(topup.name) == "success"


@side_by_side.story(Setup(hangs="createTopup", post_seconds=40, execution_timeout_seconds=20))
def test_execution_timeout_in_the_post(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.until_ended(task.pid)
    topup.struck()
    assert topup.charge_hangs()
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(hangs="createTopup", post_seconds=15, needs_api_server=True))
def test_marked_failed_in_the_post_and_cleared(topup: Topup) -> None:
    topup.start()
    task = topup.until_charge_hangs()
    topup.airflow.mark_failed(topup.name)
    topup.until_ended(task.pid)
    assert topup.charge_hangs()
    topup.until_run_failed()
    topup.airflow.clear(topup.name)
    topup.struck()
    finished = topup.finish()
    assert finished.outcome in ADOPTED
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=20, deferrable=True))
def test_triggerer_killed_while_the_topup_waits(topup: Topup) -> None:
    topup.start()
    topup.wait_until("it is deferred", lambda: topup.airflow.task(topup.name).state == "deferred")
    polls = topup.count("checkTopupStatus")
    topup.wait_until("the trigger polls", lambda: topup.count("checkTopupStatus") > polls)
    with topup.airflow.without("triggerer"):
        topup.wait_until("the charge settles", lambda: topup.sandbox.charges()[0].status == "paid")
    topup.struck()
    finished = topup.finish()
    assert finished.outcome in CHARGED
    assert finished.posts == 1


@side_by_side.story(Setup())
def test_finished_task_cleared(topup: Topup) -> None:
    topup.start()
    topup.finish()
    requests = topup.count()
    topup.airflow.clear(topup.name)
    topup.struck()
    finished = topup.finish()
    assert finished.tries > 1
    assert finished.posts == 1
    assert finished.outcome in COMPLETED
    assert topup.count() == requests or not HAS_TASK_STATE_STORE


one_waits = threading.Barrier(2)
both_went_on = threading.Barrier(2)


@side_by_side.story(Setup(hangs="createTopup", post_seconds=10, retries=6, alone=True, needs_api_server=True))
def test_api_server_down_during_the_post(topup: Topup) -> None:
    one_waits.wait(START_TIMEOUT)
    topup.start()
    topup.until_charge_hangs()
    searches = topup.count("getInvoiceHistory")
    with topup.airflow.without("api-server"):
        assert topup.charge_hangs()
        topup.wait_until("it searches for its charge", lambda: topup.count("getInvoiceHistory") > searches)
        both_went_on.wait(START_TIMEOUT)
    topup.struck()
    finished = topup.finish()
    assert finished.posts == 1


@side_by_side.story(Setup(settle_seconds=60, retries=6, alone=True, needs_api_server=True))
def test_api_server_down_during_the_wait(topup: Topup) -> None:
    topup.start()
    topup.until_it_waits()
    one_waits.wait(START_TIMEOUT)
    topup.wait_until("the API server is down", lambda: not topup.airflow.runs("api-server"))
    polls = topup.count("checkTopupStatus")
    topup.wait_until("it goes on", lambda: topup.count("checkTopupStatus") > polls + 4)
    both_went_on.wait(START_TIMEOUT)
    topup.struck()
    finished = topup.finish()
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
