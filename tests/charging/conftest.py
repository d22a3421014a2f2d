"""A client of the sandbox, and a task in front of it."""

from collections.abc import Iterator

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.sandboxed import Task, task_in
from tests.raw_servers import client_of


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[CfBillingClient]:
    """A client that tries every read once."""
    with client_of(sandbox) as client:
        yield client


@pytest.fixture
def task(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    with task_in(sandbox, monkeypatch) as task:
        yield task


@pytest.fixture(params=[False, True], ids=["waits", "is deferred"])
def any_task(task: Task, request: pytest.FixtureRequest) -> Task:
    """A task that waits in its process, and one that is deferred."""
    task.deferrable = request.param
    return task
