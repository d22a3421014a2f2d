"""Everything a sandbox knows, in one place."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from airflow_provider_cfbilling.sandbox.auth import RequestQuota
from airflow_provider_cfbilling.sandbox.billing import Billing
from airflow_provider_cfbilling.sandbox.faults import FaultScript
from airflow_provider_cfbilling.sandbox.ledger import Ledger
from airflow_provider_cfbilling.sandbox.models import DEFAULT_ACCOUNT_ID, Account, checked
from airflow_provider_cfbilling.sandbox.operations import Operations


@dataclass(frozen=True)
class ServerSettings:
    """What holds for the whole sandbox.

    :param rate_quota: requests per window and token.
    :param rate_window_seconds: the window, and how long a token is blocked once that is exceeded.
    :param clock_offset_seconds: how far the sandbox's clock is ahead of this machine's.
    """

    rate_quota: int = 1_200
    rate_window_seconds: float = 300.0
    clock_offset_seconds: float = 0.0


class SandboxState:
    """The books, the faults to come, and the settings.

    :param database: path of the ledger; by default a temporary file.
    :param accounts: how many accounts there are to begin with.
    :param account: the switches each account begins with.
    """

    def __init__(
        self,
        database: str | Path | None = None,
        accounts: int = 1,
        account: Account | None = None,
        settings: ServerSettings | None = None,
    ) -> None:
        self._initial_settings = settings or ServerSettings()
        self._initial_account = account or Account()
        self._account_ids = [f"{int(DEFAULT_ACCOUNT_ID, 16) + number:032x}" for number in range(accounts)]
        self.ledger = Ledger(database)
        self.billing = Billing(self.ledger, self.now)
        self.operations = Operations(self.ledger, self.billing)
        self.faults = FaultScript()
        self.epoch = 0
        self._begin()

    def _begin(self) -> None:
        self.settings = self._initial_settings
        self.limiter = RequestQuota(self.settings.rate_quota, self.settings.rate_window_seconds)
        for account_id in self._account_ids:
            if self.ledger.account(account_id) is None:
                self.ledger.save_account(account_id, self._initial_account)

    def now(self) -> float:
        """Unix seconds by the sandbox's clock."""
        return time.time() + self.settings.clock_offset_seconds

    def reset(self) -> None:
        """Start afresh. By the new epoch, requests still under way see that their state has gone."""
        self.epoch += 1
        self.ledger.clear()
        self.faults.clear()
        self._begin()

    def configure_account(self, account_id: str, switches: dict[str, object]) -> Account:
        """Create or change an account."""
        current = self.ledger.account(account_id) or self._initial_account
        account = checked(Account, asdict(current) | switches)
        self.ledger.save_account(account_id, account)
        return account

    def configure_server(self, changes: dict[str, object]) -> ServerSettings:
        """Change the server's settings; every token's quota is whole again."""
        self.settings = checked(ServerSettings, asdict(self.settings) | changes)
        self.limiter = RequestQuota(self.settings.rate_quota, self.settings.rate_window_seconds)
        return self.settings
