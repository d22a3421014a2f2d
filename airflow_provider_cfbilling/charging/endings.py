"""How a top-up can end other than well."""

from typing import Self

from airflow_provider_cfbilling.api.errors import CfBillingError


class TopupNotNeeded(Exception):  # noqa: N818 (nothing went wrong)
    """The balance, or how long it lasts, is enough: nothing was charged, and nothing needs to be."""


class ChargeDeadlinePassed(Exception):  # noqa: N818 (nothing went wrong)
    """The order is older than may be charged: nothing was charged."""


class PaymentFailedError(CfBillingError):
    """The top-up's invoice will not be paid any more: it is void or uncollectible."""

    @classmethod
    def of(cls, payment_intent_id: str, status: str) -> Self:
        return cls(
            f"The payment of top-up {payment_intent_id} failed: its invoice is {status}. The card was not "
            "charged; once it works, start another Dag run"
        )


class ManualReviewRequiredError(CfBillingError):
    """Whether, or by what, the card was charged cannot be determined from what Cloudflare shows."""


class ChargeUnconfirmedError(CfBillingError):
    """A charge may have been made, and the invoice history that would prove it could not be read.

    :param retryable: whether reading it again may help.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class ConnectionUnreadableError(CfBillingError):
    """The Airflow connection cannot be read: it was deleted, or what keeps it does not respond."""

    retryable = True


class RecordError(CfBillingError):
    """The record of the top-up could not be read, or written before a charge: nothing more was sent."""

    retryable = True


class SupersededError(CfBillingError):
    """A later try of the same task has begun: this one sends nothing more."""

    retryable = True


class NotChargedError(CfBillingError):
    """Proven: nothing was charged. A later try may charge."""

    retryable = True


class StillPendingError(CfBillingError):
    """The top-up was accepted and is not paid yet. A later try resumes the wait for it."""

    retryable = True
