"""Turns what the lower half raises into what Airflow acts on."""

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.charging.errors import ChargeDeadlinePassed, TopupNotNeeded


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
