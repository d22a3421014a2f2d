"""One Airflow on many machines for all stories, and the numbers they have come to, at the end."""

from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.distributed.cluster import Cluster
from tests.distributed.services import Broker, Postgres, what_is_missing
from tests.distributed.topups import Plan, Topups, source

PLANS = {
    plan.name: plan
    for plan in (
        Plan("many", first=0x1000, count=200),
        Plan("killed", first=0x2000, count=8, post_seconds=12),
        Plan("twice", first=0x3000, count=2, post_seconds=40),
        Plan("halved", first=0x4000, count=16, settle_seconds=40, deferrable=True),
        Plan("restarted", first=0x5000, count=16, post_seconds=12, settle_seconds=1),
    )
}
_summary: list[str] = []


def pytest_sessionstart() -> None:
    if missing := what_is_missing():
        raise pytest.UsageError(f"make test-distributed cannot run: {missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _summary:
        terminalreporter.section("what the sandbox has counted")
        for line in _summary:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def summary() -> list[str]:
    """Lines to be shown at the end."""
    return _summary


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as postgres:
        yield postgres


@pytest.fixture(scope="session")
def cloudflare() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def cluster(postgres: Postgres, broker: Broker, cloudflare: Sandbox) -> Iterator[Cluster]:
    connections = {name: plan.prepare(cloudflare) for name, plan in PLANS.items()}
    with Cluster(source(list(PLANS.values())), connections, postgres, broker) as cluster:
        yield cluster


@pytest.fixture
def topups(request: pytest.FixtureRequest, cluster: Cluster, cloudflare: Sandbox) -> Topups:
    """The top-ups that the test's mark ``plan`` names."""
    name: str = request.node.get_closest_marker("plan").args[0]
    return Topups(PLANS[name], cluster, cloudflare)
