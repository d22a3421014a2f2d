"""Tops up on many machines, and kills what can be killed in between: each card is charged once.

What the sandbox has charged to each account is the judge. The stories share one Airflow, and come one after
the other: each leaves all machines running.
"""

import time
from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.distributed.cluster import (
    SCHEDULERS,
    TRIGGERERS,
    TRIGGERS_PER_TRIGGERER,
    VISIBILITY_SECONDS,
    WORKERS,
    Cluster,
)
from tests.distributed.services import Broker, Postgres
from tests.distributed.topups import Topups, charged_wrongly
from tests.real_airflow import processes

pytestmark = [pytest.mark.timeout(420)]

FIRST, SECOND = WORKERS


@pytest.fixture(autouse=True)
def all_machines_run(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.wait_until("all workers work", lambda: all(cluster.works(worker) for worker in WORKERS), 60)


@pytest.mark.plan("many")
def test_two_hundred_accounts_are_topped_up(topups: Topups, summary: list[str]) -> None:
    topups.start()
    finished = topups.finish()
    assert finished.outcomes() == {"charged": 200}
    assert finished.count("createTopup") == 200
    charges, requests = sum(finished.charges.values()), len(finished.requests)
    summary += [
        f"top-ups per minute: {60 * 200 / finished.seconds:.0f} (200 in {finished.seconds:.0f} s)",
        f"charges per top-up: {charges / 200:.2f}",
        f"requests per top-up: {requests / 200:.2f}",
    ]


@pytest.mark.plan("killed")
def test_killed_worker_leaves_its_posts_to_the_other(
    topups: Topups, cluster: Cluster, cloudflare: Sandbox, summary: list[str]
) -> None:
    """Half of the charges were made and lost their responses, half were not made: no task can know which."""
    for _ in range(topups.plan.count // 2):
        cloudflare.fault("createTopup", "hang", "after")
        cloudflare.fault("createTopup", "hang", "before")
    topups.start()
    topups.until("all charges hang", lambda: len(topups.hanging()) == topups.plan.count)
    posting = [task.map_index for task in topups.tasks() if cluster.task_process(FIRST, task)]
    assert posting
    charged = [account_id for account_id, charges in topups.charges().items() if charges]
    killed_at = time.time()
    with cluster.without(FIRST):
        finished = topups.finish()
    assert finished.outcomes() == {"adopted": len(charged), "charged": topups.plan.count - len(charged)}
    assert finished.count("createTopup") == topups.plan.count + len(finished.results) - len(charged)
    moved = [task for task in topups.tasks() if task.map_index in posting]
    for task in moved:
        assert cluster.tries_on(FIRST, topups.plan.name, task.map_index) == [1]
        assert task.try_number in cluster.tries_on(SECOND, topups.plan.name, task.map_index)
    for made, what in ((True, "made"), (False, "not made")):
        ends = [task.ended_at for task in moved if (topups.account_of(task) in charged) == made]
        seconds = ", ".join(f"{ended_at - killed_at:.1f} s" for ended_at in sorted(ends))
        summary.append(f"from the kill to the finished top-up, its charge {what}: {seconds}")


@pytest.mark.plan("twice")
def test_redelivered_message_sends_no_second_post(
    topups: Topups, cluster: Cluster, cloudflare: Sandbox, broker: Broker, summary: list[str]
) -> None:
    """A worker that starts takes what others have not acknowledged in time, though they are at it."""
    number = topups.plan.count
    cloudflare.fault("createTopup", "hang", "after", times=number)
    redelivered = cluster.redeliveries()
    with cluster.without(SECOND):
        topups.start()
        topups.until("all charges hang", lambda: len(topups.hanging()) == number)
        topups.until("the broker gives up on them", lambda: broker.overdue(VISIBILITY_SECONDS) >= number)
    topups.until("they are delivered again", lambda: cluster.redeliveries() - redelivered >= number)
    assert all(cluster.task_process(FIRST, task) for task in topups.tasks()), "the POSTs have ended before"
    finished = topups.finish()
    assert finished.outcomes() == {"adopted": number}
    assert finished.count("createTopup") == number
    summary.append(f"tasks delivered twice: {cluster.redeliveries() - redelivered}")


@pytest.mark.plan("halved")
def test_others_take_over_from_killed_scheduler_and_triggerer(topups: Topups, cluster: Cluster) -> None:
    topups.start()
    topups.until(
        "both triggerers have their hands full", lambda: cluster.triggers() == [TRIGGERS_PER_TRIGGERER] * 2
    )
    cluster.kill(SCHEDULERS[0])
    cluster.kill(TRIGGERERS[0])
    assert cluster.states(topups.plan.name) == {"deferred": topups.plan.count}
    finished = topups.finish()
    assert finished.outcomes() == {"charged": topups.plan.count}
    assert finished.count("createTopup") == topups.plan.count
    cluster.start(SCHEDULERS[0])
    cluster.start(TRIGGERERS[0])


@pytest.mark.plan("restarted")
def test_database_outage_that_ends_tries_charges_no_account_twice(
    topups: Topups, cluster: Cluster, cloudflare: Sandbox, postgres: Postgres, summary: list[str]
) -> None:
    """Those that were charging can write down neither what they have done nor that they have failed."""
    cloudflare.fault("createTopup", "hang", "after", times=2)
    cloudflare.fault("createTopup", "hang", "before", times=2)
    topups.start()
    topups.until("charges hang", lambda: len(topups.hanging()) == 4)
    hanging = topups.hanging()
    posting = [
        process.pid
        for task in topups.tasks()
        for worker in WORKERS
        if topups.account_of(task) in hanging and (process := cluster.task_process(worker, task))
    ]
    assert len(posting) == 4
    postgres.crash()
    topups.until("they have died", lambda: not any(processes.is_alive(pid) for pid in posting))
    postgres.start()
    topups.until("the Dag run has ended", lambda: cluster.revive() or topups.has_ended(), 240)
    finished = topups.end()
    charges, states = finished.charges, cluster.states(topups.plan.name)
    summary.append(f"after the database's crash: {dict(states)}, {sum(charges.values())} charges")
    assert max(charges.values()) == 1, charged_wrongly(charges)
    assert set(states) <= {"success", "failed"}
    done = [topups.account_of(task) for task in topups.tasks() if task.state == "success"]
    assert all(charges[account_id] == 1 for account_id in done)
