"""Top-ups of many accounts, each Dag's with an API token of their own, as one token is one rate limit."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_cfbilling.sandbox import Sandbox
from airflow_provider_cfbilling.sandbox.models import SeenRequest
from tests.distributed.cluster import Cluster, MappedTask

AMOUNT_CENTS = 2_500

HEADER = """\
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
"""

_DAG = """
with DAG("{name}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), max_active_tasks=32):
    CfBillingCreateTopupOperator.partial(
        task_id="topup",
        cfbilling_conn_id="{name}",
        amount_cents={amount_cents},
        poll_interval=0.5,
        timeout=150,
        unknown_outcome_window={window_seconds},
        deferrable={deferrable},
        retries=4,
        retry_delay=timedelta(seconds=1),
    ).expand(account_id={accounts})
"""


@dataclass(frozen=True)
class Plan:
    """What a Dag tops up.

    :param first: the number of its first account.
    :param count: how many accounts it tops up, once each.
    :param post_seconds: how long it waits for the response to a charge.
    :param settle_seconds: from a charge to its settlement.
    """

    name: str
    first: int
    count: int
    post_seconds: float = 6.0
    settle_seconds: float = 0.0
    deferrable: bool = False

    @property
    def accounts(self) -> list[str]:
        return [f"{number:032x}" for number in range(self.first, self.first + self.count)]

    @property
    def dag(self) -> str:
        return _DAG.format(
            name=self.name,
            amount_cents=AMOUNT_CENTS,
            window_seconds=self.post_seconds + 6,  # the minimum is 5 more
            deferrable=self.deferrable,
            accounts=self.accounts,
        )

    def prepare(self, sandbox: Sandbox) -> str:
        """Open the accounts; return the connection to them."""
        for account_id in self.accounts:
            sandbox.configure(account_id, token=self.token, settle_seconds=self.settle_seconds)
        uri = sandbox.connection_uri(self.accounts[0], self.token)
        return f"{uri}?read_timeout={self.post_seconds:g}&max_attempts=2"

    @property
    def token(self) -> str:
        return f"token-of-{self.name}"


@dataclass(frozen=True)
class Finished:
    """Top-ups that have ended.

    :param seconds: since they were started.
    :param charges: by account.
    """

    seconds: float
    charges: dict[str, int]
    requests: list[SeenRequest]
    results: list[dict[str, Any]]

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)

    def outcomes(self) -> Counter[str]:
        return Counter(result["outcome"] for result in self.results)


class Topups:
    """One Dag run that tops up many accounts, whatever befalls it."""

    def __init__(self, plan: Plan, cluster: Cluster, sandbox: Sandbox) -> None:
        self.plan = plan
        self._cluster = cluster
        self._sandbox = sandbox
        self._began_at = 0.0

    def start(self) -> None:
        self._began_at = time.monotonic()
        self._cluster.trigger(self.plan.name)

    def until(self, what: str, condition: Any, seconds: float = 120.0) -> Any:
        return self._cluster.wait_until(f"{self.plan.name}: {what}", condition, seconds)

    def tasks(self) -> list[MappedTask]:
        return self._cluster.tasks(self.plan.name)

    def account_of(self, task: MappedTask) -> str:
        return self.plan.accounts[task.map_index]

    def requests(self, operation: str | None = None) -> list[SeenRequest]:
        """Return the requests for these accounts that Cloudflare's stand-in has seen."""
        own = set(self.plan.accounts)
        return [each for each in self._sandbox.requests(operation) if account_in(each.path) in own]

    def hanging(self) -> list[str]:
        """Return the accounts whose charge is sent and has no response so far."""
        posts = self.requests("createTopup")
        return [account_in(post.path) for post in posts if post.status is None]

    def charges(self) -> dict[str, int]:
        charged = Counter(charge.account_id for charge in self._sandbox.charges())
        return {account_id: charged[account_id] for account_id in self.plan.accounts}

    def finish(self, seconds: float = 240.0) -> Finished:
        """Wait, and do nothing, until all have succeeded, and were charged once each."""
        finished = self.end(seconds)
        states = self._cluster.states(self.plan.name)
        assert states == {"success": self.plan.count}, f"{states}\n{self._cluster.log_tails()}"
        assert set(finished.charges.values()) == {1}, charged_wrongly(finished.charges)
        assert {each["account_id"] for each in finished.results} == set(self.plan.accounts)
        self.until("nothing of the records is left", lambda: not self._cluster.records(self.plan.name), 20)
        return finished

    def end(self, seconds: float = 240.0) -> Finished:
        """Wait, and do nothing, until the Dag run has ended."""
        self.until("the Dag run has ended", self.has_ended, seconds)
        passed = time.monotonic() - self._began_at
        results = self._cluster.results(self.plan.name)
        return Finished(passed, self.charges(), self.requests(), results)

    def has_ended(self) -> bool:
        return self._cluster.run_state(self.plan.name) in ("success", "failed")


def account_in(path: str) -> str:
    """Return the account that a request is for."""
    return path.partition("/accounts/")[2][:32]


def charged_wrongly(charges: dict[str, int]) -> dict[str, int]:
    return {account_id: count for account_id, count in charges.items() if count != 1}


def source(plans: Sequence[Plan]) -> str:
    """Return the Dag file of several plans."""
    return HEADER + "".join(plan.dag for plan in plans)
