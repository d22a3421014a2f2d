"""What operators, sensors and triggers share."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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


def check_seconds(name: str, value: float) -> float:
    """Return ``value`` if it is a number of seconds above 0, or raise :class:`ValueError`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise ValueError(f"{name} must be a number of seconds above 0; got {value!r}.")
    return value


def number_if_rendered(value: Any) -> Any:
    """Return the whole number that a template rendered as text; anything else as it is."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value
