"""What answers HTTP in an Airflow: its UI, and the public API that the UI uses."""

from contextlib import suppress
from typing import Any

import requests


class Api:
    """The API server of an Airflow that knows no users: everybody may do everything. Before 3.0 only a UI."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def serves(self) -> bool:
        """Tell whether it answers."""
        with suppress(requests.ConnectionError):
            return self._request("GET", "/").ok
        return False

    def call(self, method: str, path: str, body: dict[str, Any]) -> None:
        token = self._request("GET", "/auth/token").json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        response = self._request(method, f"/api/v2/{path}", json=body, headers=headers)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text}"

    def trigger(self, dag_id: str) -> None:
        """Start a Dag's run."""
        self.call("POST", f"dags/{dag_id}/dagRuns", {"dag_run_id": "run", "logical_date": None})

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # a proxy has no business here
            return session.request(method, f"{self.url}{path}", timeout=30, **arguments)
