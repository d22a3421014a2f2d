"""Finds the Dag run that an invoice was charged by, in the XComs that the operator has pushed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.models import DagModel
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

_DAYS = 60
_MAX_ROWS = 1000  # an index serves them: some milliseconds among 100,000 XComs


def dag_runs_of(invoices: Collection[str], user: Any) -> dict[str, tuple[str, str]]:
    """Return the Dag id and the run id for each invoice that has one and whose Dag the user may read.

    None while a retry of the task begins (its XComs are cleared), after ``airflow db clean``, and for
    charges of another Airflow.
    """
    query = (
        select(XComModel.dag_id, XComModel.run_id, XComModel.value)
        .where(
            XComModel.key == "payment_intent_id",
            XComModel.timestamp >= datetime.now(UTC) - timedelta(days=_DAYS),
        )
        .order_by(XComModel.timestamp.desc())
        .limit(_MAX_ROWS)
    )
    with create_session() as session:
        rows = session.execute(query).all()
    # JSON text in a JSON column; compared here, since no two databases compare JSON alike.
    found = {str(value).strip('"'): (dag_id, run_id) for dag_id, run_id, value in reversed(rows)}
    runs = {invoice: found[invoice] for invoice in invoices if invoice in found}
    readable = {dag_id for dag_id in {dag_id for dag_id, _ in runs.values()} if _may_read_dag(dag_id, user)}
    return {invoice: run for invoice, run in runs.items() if run[0] in readable}


def _may_read_dag(dag_id: str, user: Any) -> bool:
    # With teams, Airflow 3.2 and later, a Dag may belong to one.
    team = DagModel.get_team_name(dag_id) if hasattr(DagModel, "get_team_name") else None
    details = DagDetails(id=dag_id, **({"team_name": team} if team else {}))
    return bool(get_auth_manager().is_authorized_dag(method="GET", user=user, details=details))
