"""How a top-up can end other than well."""

from airflow_provider_cfbilling.api.errors import CfBillingError


class BalanceIsEnough(Exception):  # noqa: N818 (nothing went wrong)
    """The balance guard says no: nothing was charged, and nothing needs to be."""


class ComesTooLate(Exception):  # noqa: N818 (nothing went wrong)
    """The order is older than may be charged: nothing was charged."""


class PaymentFailedError(CfBillingError):
    """The top-up's invoice will not be paid any more: it is void or uncollectible."""


class NeedsAPersonError(CfBillingError):
    """Whether, or by what, the card was charged cannot be told from what Cloudflare shows."""


class NotChargedError(CfBillingError):
    """Proven: nothing was charged. A later try may charge."""


class StillPendingError(CfBillingError):
    """The top-up was accepted and is not paid yet. A later try goes on waiting for the same one."""
