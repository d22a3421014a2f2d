"""What operators and sensors share."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook

# What Airflow resumes a deferred task with if it was not the trigger that ended the wait. Airflow 2 does not
# tell the trigger's timeout from the task's.
_TRIGGER_FAILED = ("Trigger failure",)
_TRIGGER_TIMED_OUT = ("Trigger timeout", "Trigger/execution timeout")


class CfBillingHookMixin:
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


class DeferrableMixin:
    """A task that can wait in the triggerer. If no trigger can wait for it, it waits itself."""

    log: Any

    @abstractmethod
    def execute_without_trigger(self, context: Context, reason: str) -> Any:
        """Finish the wait in the task itself."""

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume a deferred task, also from a trigger that failed as a whole: it could not be loaded, say."""
        if _resumed_with(_TRIGGER_FAILED, next_method, next_kwargs):
            lines = [line for line in (next_kwargs or {}).get("traceback") or () if line.strip()]
            return self.execute_without_trigger(context, lines[-1].strip() if lines else "it failed")
        if trigger_timed_out(next_method, next_kwargs):
            self._wait_timed_out(context)
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]

    def _wait_timed_out(self, context: Context) -> None:
        """Fail in the task's own words, or leave it to Airflow: the wait has taken too long."""


class TolerantTemplatesMixin:
    """A task that may not need its templates any more: it goes on from what an earlier process recorded.

    :ivar unrendered: why a template could not be rendered.
    """

    log: Any
    unrendered: Exception | None = None

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render what can be rendered."""
        try:
            super().render_template_fields(context, jinja_env)  # type: ignore[misc]
        except Exception as error:
            self.log.warning("A template cannot be rendered: %s: %s", type(error).__name__, error)
            self.unrendered = error


def trigger_timed_out(next_method: str, next_kwargs: dict[str, Any] | None) -> bool:
    """Return whether a deferred task is resumed because its wait took too long."""
    return _resumed_with(_TRIGGER_TIMED_OUT, next_method, next_kwargs)


def _resumed_with(errors: tuple[str, ...], next_method: str, next_kwargs: dict[str, Any] | None) -> bool:
    return next_method == "__fail__" and (next_kwargs or {}).get("error") in errors
