"""Counts what Airflow's processes report as metrics, as a StatsD server does."""

import socket
import threading
from collections import Counter
from types import TracebackType
from typing import Self

PREFIX = "airflow."
_END = b"end"


class Counters:
    """A StatsD server on the loopback, as long as its ``with`` block."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._counted: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._count, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow report here."""
        host, port = self._socket.getsockname()
        settings = {"STATSD_ON": True, "STATSD_HOST": host, "STATSD_PORT": port}
        return {f"AIRFLOW__METRICS__{name}": str(value) for name, value in settings.items()}

    def count(self, name: str) -> int:
        return self._counted[PREFIX + name]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(_END, self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _count(self) -> None:
        while (packet := self._socket.recv(65_536)) != _END:
            for line in packet.decode(errors="replace").splitlines():
                name, _, rest = line.partition(":")
                value, _, kind = rest.partition("|")
                if kind.startswith("c"):
                    self._counted[name] += int(float(value))
