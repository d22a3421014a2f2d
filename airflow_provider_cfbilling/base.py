"""What operators, sensors and triggers share."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_cfbilling.api.money import is_number_above_0

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook


class WithHook:
    """A task with a connection.

    The hook is imported when the task runs. It brings ``requests``, which would cost every parse of a Dag
    100 ms.
    """

    cfbilling_conn_id: str
    account_id: str | None

    @cached_property
    def hook(self) -> CfBillingHook:
        """The hook on the task's connection and account."""
        from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook

        return CfBillingHook(self.cfbilling_conn_id, self.account_id)


class WithTrigger:
    """A task that can wait in the triggerer. If no trigger can wait for it, it waits itself."""

    log: Any

    @abstractmethod
    def execute_without_trigger(self, context: Context, reason: str) -> Any:
        """Finish the wait in the task itself."""

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume a deferred task, also from a trigger that failed as a whole: it could not be loaded, say."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") == "Trigger failure":
            lines = [line for line in (next_kwargs or {}).get("traceback") or () if line.strip()]
            return self.execute_without_trigger(context, lines[-1].strip() if lines else "it failed")
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]


def check_boolean(name: str, value: bool) -> bool:
    """Return ``value`` if it is True or False, or raise :class:`ValueError`: "False" is true in Python."""
    if not isinstance(value, bool):
        raise ValueError(
            f"{name} must be True or False, known when the Dag is parsed; got {value!r:.60}. It takes no "
            "text and no template."
        )
    return value


def check_seconds(name: str, value: float) -> float:
    """Return ``value`` if it is a number of seconds above 0, or raise :class:`ValueError`."""
    if not is_number_above_0(value):
        raise ValueError(f"{name} must be a number of seconds above 0; got {value!r}.")
    return value


def checked_cents(name: str, value: Any) -> float:
    """Return a number of cents given as itself or as its text, or raise :class:`ValueError`."""
    try:
        cents: Any = float(value) if isinstance(value, str) else value
    except ValueError:
        cents = None
    if not is_number_above_0(cents):
        raise ValueError(f"{name} must be a number of cents above 0 (1000 is $10.00); got {value!r:.60}.")
    return float(cents)


def checked_moment(name: str, value: datetime | str) -> datetime:
    """Return a moment given as itself or as ISO 8601 text, or raise :class:`ValueError`."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if moment.tzinfo is not None:
            return moment
    except (AttributeError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{name} must be a datetime with a time zone, or its text such as 2026-01-31T00:00:00+00:00; "
        f"got {value!r:.60}."
    )


def number_if_rendered(value: Any) -> Any:
    """Return the whole number that a template rendered as text; anything else as it is."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value
