"""Turns what the lower half raises into what Airflow acts on."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.charging.endings import ChargeDeadlinePassed, TopupNotNeeded

AFTER_KILL = (
    "Task killed. A charge that was made is not reversed; running the task again resumes the same top-up."
)


def described_error(error: Exception) -> str:
    """Return what an error says if it is one of ours or of Airflow's, which hold no secret; else its kind."""
    if isinstance(error, CfBillingError | AirflowException):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Fail the task at once if a retry cannot help, and skip it if it is not to charge."""
    try:
        yield
    except TopupNotNeeded as reason:
        raise AirflowSkipException(str(reason)) from None
    except ChargeDeadlinePassed as reason:
        raise AirflowSkipException(
            f"{reason} Late catch-up and backfill runs do not charge; max_run_age=None charges anyway."
        ) from None
    except CfBillingError as error:
        raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from error
