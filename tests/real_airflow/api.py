"""What serves HTTP in an Airflow: its UI, and the public API that the UI uses."""

from contextlib import suppress
from typing import Any

import requests


class Api:
    """The API server of an Airflow, before 3.0 only a UI.

    :param prefix: the path that it is served below.
    :param user: whose name is the password too; None: everybody may do everything.
    """

    def __init__(self, port: int, prefix: str = "", user: str | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}{prefix}"
        self._user = user

    def serves(self) -> bool:
        """Return whether it responds."""
        with suppress(requests.ConnectionError):
            return self._request("GET", "/").ok
        return False

    def token(self, user: str | None) -> str:
        """Log in, and return what proves it."""
        body = {"json": {"username": user, "password": user}} if user else {}
        response = self._request("POST" if user else "GET", "/auth/token", **body)
        assert response.ok, response.text
        return str(response.json()["access_token"])

    def call(self, method: str, path: str, body: dict[str, Any]) -> None:
        token = self.token(self._user)
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
