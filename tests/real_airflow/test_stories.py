"""Two equal top-ups are two charges, whatever befalls one of them, and a retry does not take over another's.

A window of ten minutes stands where nothing may be searched for: a story that waits for it fails.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Record, State
from airflow_provider_cfbilling.charging.reconcile import CLOCK_TOLERANCE_SECONDS
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.real_airflow import processes
from tests.real_airflow.deployment import HAS_API_SERVER, HAS_TASK_STATE_STORE, an_airflow_can_run_here
from tests.real_airflow.stories import HEADER, Ended, Play, Scene
from tests.real_airflow.topups import AMOUNT_CENTS, SideBySide

pytestmark = an_airflow_can_run_here(seconds=480)

ONE_WITHOUT_WINDOW = """
with dag("{name}"):
    topup("{name}", window=600)
"""
ONE = """
with dag("{name}"):
    topup("{name}")
"""
TWO_WITHOUT_WINDOW = """
with dag("{name}"):
    topup("{name}", "first") >> topup("{name}", "second", window=600)
"""
TWO_IMPATIENT = """
with dag("{name}"):
    topup("{name}", "first") >> topup("{name}", "second", timeout=4)
"""
TWO_DAGS = """
with dag("{name}"):
    topup("{name}", window=600)
with dag("{name}_other"):
    topup("{name}")
"""
FOUR_AT_ONCE = """
with dag("{name}"):
    Topup.partial(**options("{name}", window=600)).expand(amount_cents=[2500] * 4)
"""
# How a try may end besides: Airflow 2 ends tries of its own accord when the processors are busy, and then one
# more goes on from the record.
ALSO = () if HAS_API_SERVER else ("resumed", "already_completed")

side_by_side = SideBySide(Play, HEADER)


@pytest.fixture(scope="module")
def played() -> Iterator[None]:
    with ExitStack() as stack:
        side_by_side.play(stack)
        yield


def fail_reads(sandbox: Sandbox, operation: str, **details: object) -> None:
    sandbox.fault(operation, "status", **{"status": 503, **details})


@side_by_side.story(Scene(source=TWO_WITHOUT_WINDOW))
def test_second_of_two_fails_before_its_charge(play: Play) -> None:
    play.start_and_wait_before_second()
    print(f"requests of a top-up in one try: {play.count()}")
    fail_reads(play.sandbox, "getInvoiceHistory", times=2)
    play.order("second").go_on()
    play.until_failed_once("second")
    failed_at = play.sandbox.requests()[-1].at
    play.struck()
    ended = play.end(2)
    assert ended.outcomes == {"first": "charged", "second": "charged"}
    assert len(ended.posts) == 2
    print(f"from a try that failed before its charge to the charge: {ended.posts[-1] - failed_at - 1:.1f} s")


@side_by_side.story(Scene())
def test_second_of_two_is_killed_in_a_post_that_charges(play: Play) -> None:
    play.start_and_wait_before_second()
    play.sandbox.fault("createTopup", "hang", "after")
    play.order("second").go_on()
    play.until_post_hangs(2)
    play.kill("second")
    ended = play.end(2)
    assert ended.outcomes["second"] in {"adopted", *ALSO}
    assert len(ended.posts) == 2


@side_by_side.story(Scene())
def test_second_of_two_is_killed_in_a_post_that_does_not_charge(play: Play) -> None:
    play.start_and_wait_before_second()
    play.sandbox.fault("createTopup", "hang", "before")
    play.order("second").go_on()
    play.until_post_hangs(2)
    play.kill("second")
    ended = play.end(2)
    assert ended.outcomes["second"] in {"charged", *ALSO}
    assert len(ended.posts) == 3


@side_by_side.story(Scene())
def test_second_of_two_loses_the_response_to_its_charge_and_cannot_search(play: Play) -> None:
    lose_response_and_be_unable_to_search(play, "after")
    ended = play.end(2)
    assert ended.outcomes == {"first": "charged", "second": "adopted"}
    assert len(ended.posts) == 2


@side_by_side.story(Scene())
def test_second_of_two_loses_the_response_to_no_charge_and_cannot_search(play: Play) -> None:
    lose_response_and_be_unable_to_search(play, "before")
    ended = play.end(2)
    assert ended.outcomes == {"first": "charged", "second": "charged"}
    assert len(ended.posts) == 3


def lose_response_and_be_unable_to_search(play: Play, when: str) -> None:
    play.start_and_wait_before_second()
    play.sandbox.fault("createTopup", "reset", when)
    fail_reads(play.sandbox, "getInvoiceHistory", times=None, skip=1)
    play.order("second").go_on()
    play.until_failed_once("second")
    play.sandbox.clear_faults()
    play.struck()


@side_by_side.story(Scene(source=TWO_IMPATIENT))
def test_second_of_two_cannot_poll_for_its_settlement(play: Play) -> None:
    play.start_and_wait_before_second()
    fail_reads(play.sandbox, "checkTopupStatus", times=None)
    play.order("second").go_on()
    play.until_failed_once("second")
    play.sandbox.clear_faults()
    play.struck()
    ended = play.end(2)
    assert ended.outcomes == {"first": "charged", "second": "resumed"}
    assert len(ended.posts) == 2


@side_by_side.story(Scene(source=TWO_WITHOUT_WINDOW, needs_retry_after_kill=True))
def test_second_of_two_ends_by_itself_before_it_begins(play: Play) -> None:
    play.order("second").die()
    play.start_and_wait_before_second()
    play.order("second").go_on()
    play.struck()
    ended = play.end(2)
    assert set(ended.outcomes.values()) <= {"charged", *ALSO}
    assert ended.tries["second"] > 1


@side_by_side.story(Scene(source=TWO_WITHOUT_WINDOW, needs_retry_after_kill=True))
def test_second_of_two_is_killed_before_it_begins(play: Play) -> None:
    play.start_and_wait_before_second()
    play.kill("second")
    ended = play.end(2)
    assert set(ended.outcomes.values()) <= {"charged", *ALSO}
    assert ended.tries["second"] > 1


@side_by_side.story(Scene(source=TWO_DAGS, others=["other"]))
def test_another_dag_tops_up_after_a_try_that_failed_before_its_charge(play: Play) -> None:
    fail_reads(play.sandbox, "getInvoiceHistory", times=2)
    let_other_dag_topup_before_the_second_try(play)


@side_by_side.story(Scene(source=TWO_DAGS, others=["other"], needs_retry_after_kill=True))
def test_another_dag_tops_up_after_a_try_that_died_before_it_began(play: Play) -> None:
    play.order().die()
    let_other_dag_topup_before_the_second_try(play)


def let_other_dag_topup_before_the_second_try(play: Play) -> None:
    retry = play.order(try_number=2)
    retry.wait()
    play.start(waits_for=retry)
    play.run_other(f"{play.name}_other")
    retry.go_on()
    play.struck()
    ended = play.end(2, f"{play.name}_other")
    assert set(ended.outcomes.values()) == {"charged"}
    assert len(ended.posts) == 2


@side_by_side.story(Scene(source=ONE_WITHOUT_WINDOW))
def test_declined_task_is_cleared_once_the_card_works_again(play: Play) -> None:
    play.sandbox.configure(next_topup_outcome="declined", declined_leaves="void")
    play.start()
    play.until_run_failed()
    assert [invoice.status for invoice in play.sandbox.invoices()] == ["void"]
    play.airflow.clear(play.name)
    play.struck()
    ended = play.end(1)
    assert ended.outcomes == {"topup": "charged"}
    assert len(ended.posts) == 2


@side_by_side.story(Scene())
def test_second_of_two_is_cleared_when_both_have_finished(play: Play) -> None:
    """Below Airflow 3.3 the record has gone, and the history cannot show which of two charges was its own."""
    play.start()
    play.end(2)
    play.airflow.clear(play.name, "second")
    if HAS_TASK_STATE_STORE:
        ended = play.end(2)
        assert ended.outcomes["second"] == "already_completed"
    else:
        play.until_run_failed()
    assert len(play.sandbox.charges()) == 2
    assert play.count("createTopup") == 2


@side_by_side.story(Scene(source=ONE, needs_api_server=True))
def test_finished_task_is_cleared_in_a_run_that_was_queued_again(play: Play) -> None:
    """The run has another start then, and below Airflow 3.2 nothing shows that."""
    play.start()
    play.end(1)
    play.airflow.pause(play.name, True)
    play.airflow.queue_again(play.name)
    play.airflow.clear(play.name)
    time.sleep(CLOCK_TOLERANCE_SECONDS)
    play.struck()
    play.airflow.pause(play.name, False)
    ended = play.end(1)
    assert ended.outcomes == {"topup": "already_completed" if HAS_TASK_STATE_STORE else "adopted"}
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=FOUR_AT_ONCE, needs_retry_after_kill=True))
def test_one_of_four_that_are_mapped_is_killed_in_its_post(play: Play) -> None:
    last = play.order(map_index=3)
    last.wait()
    play.start()
    play.until_it_waits_as_requested(last)
    play.wait_until("the others are done", lambda: three_are_done(play))
    play.sandbox.fault("createTopup", "hang", "after")
    last.go_on()
    play.until_post_hangs(4)
    play.kill("topup", 3)
    ended = play.end(4)
    assert ended.outcomes["topup[3]"] in {"adopted", *ALSO}
    assert {ended.outcomes[f"topup[{index}]"] for index in range(3)} == {"charged"}
    assert len(ended.posts) == 4


def three_are_done(play: Play) -> bool:
    return [task.state for task in play.airflow.tasks(play.name)].count("success") == 3


# Longer than Airflow takes to find that the supervisor is dead, and to begin the next try.
@side_by_side.story(Scene(source=ONE_WITHOUT_WINDOW, settle_seconds=90))
def test_orphan_ends_while_the_next_try_begins(play: Play) -> None:
    retry = play.order(try_number=2)
    retry.wait()
    play.start()
    orphan = play.until_it_waits()
    play.strike(orphan.parent)
    play.until_it_waits_as_requested(retry)
    assert processes.is_alive(orphan.pid)
    play.until_ended(orphan.pid)
    retry.go_on()
    ended = play.end(1)
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=ONE_WITHOUT_WINDOW))
def test_try_that_was_frozen_ends_well_while_the_next_one_begins(play: Play) -> None:
    retry = play.order(try_number=2)
    retry.wait()
    fail_reads(play.sandbox, "checkTopupStatus", times=None)
    play.start()
    play.wait_until("it polls for the settlement", lambda: play.count("checkTopupStatus"))
    sleeper = play.process()
    play.freeze(sleeper.parent, sleeper.pid)
    play.until_it_waits_as_requested(retry)
    play.sandbox.clear_faults()
    play.wake(sleeper.pid, sleeper.parent)
    play.until_ended(sleeper.pid)
    retry.go_on()
    ended = play.end(1)
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=ONE_WITHOUT_WINDOW))
def test_worker_dies_when_the_record_has_been_removed(play: Play) -> None:
    """What Airflow has recorded by then must not be lost."""
    play.order().die_after_success()
    play.start()
    ended = play.end(1)
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=ONE, needs_task_state_store=True))
def test_intent_from_below_3_3_whose_charge_was_made_is_adopted(play: Play) -> None:
    ended = upgrade_with(play, "intent", charges=True)
    assert ended.outcomes == {"topup": "adopted"}
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=ONE, needs_task_state_store=True))
def test_intent_from_below_3_3_whose_charge_was_not_made_is_charged_once(play: Play) -> None:
    ended = upgrade_with(play, "intent", charges=False)
    assert ended.outcomes == {"topup": "charged"}
    assert len(ended.posts) == 1


@side_by_side.story(Scene(source=ONE, needs_task_state_store=True))
def test_accepted_topup_from_below_3_3_is_resumed(play: Play) -> None:
    ended = upgrade_with(play, "accepted", charges=True)
    assert ended.outcomes == {"topup": "resumed"}
    assert len(ended.posts) == 1


def upgrade_with(play: Play, state: State, *, charges: bool) -> Ended:
    """Let the first try be one of an older Airflow, and the second one the first that this Airflow runs."""
    play.order().die()
    retry = play.order(try_number=2)
    retry.wait()
    play.start(waits_for=retry)
    sandbox = play.sandbox
    client = CfBillingClient(Settings(sandbox.account_id, sandbox.token, base_url=sandbox.base_url))
    at = client.get_invoice_history("manual").server_time.timestamp()
    intent = ChargeIntent(sandbox.account_id, AMOUNT_CENTS, at=at, written_at=time.time())
    topup = client.create_topup(AMOUNT_CENTS).to_dict() if charges else None
    play.keep_record(
        Record(
            state,
            intent,
            lost_intent=intent,
            charge_requests=1,
            topup=topup if state == "accepted" else None,
        )
    )
    retry.go_on()
    play.struck()
    return play.end(1)


def test_nothing_was_charged_since(played: None) -> None:
    assert side_by_side.charged_since() == {}
