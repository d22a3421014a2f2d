"""Many waits in one event loop, as a triggerer runs them: what they request, and what they cost."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.connection import get_async_connection

from benchmarks.serving import Counting, counting_server
from benchmarks.tables import markdown

INTERVAL = 60.0
# Who waits, how many waits, on how many accounts, at which interval (None: from 1 to 60 s, at random).
SCENES = [
    *(("ours", waits, 1, INTERVAL) for waits in (1, 100, 1000, 5000)),
    ("ours", 1000, 100, None),
    *(("http", waits, 1, INTERVAL) for waits in (1, 100, 1000, 5000)),
]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK = 0.002


def table(seconds: float) -> str:
    rows = []
    costs: dict[tuple[str, int, int], dict[str, float]] = {}
    with counting_server() as server:
        for who, waits, accounts, interval in SCENES:
            cost = costs[who, waits, accounts] = _in_a_process(
                server, who, waits, accounts, interval, seconds
            )
            peer = costs.get(("ours", waits, accounts), cost)
            rows.append(
                (
                    {"ours": "this provider", "http": "http provider"}[who],
                    f"{waits:,}",
                    accounts,
                    f"{interval:g}" if interval else "1 to 60",
                    f"{cost['requests'] / max(1.0, peer['requests']):.0f}",
                    f"{cost['requests']:.0f}",
                    f"{cost['cpu']:.2f}",
                    f"{cost['cpu'] / 60:.1%}",
                    f"{cost['kib']:.0f}",
                    f"{cost['block'] * 1000:.0f}",
                )
            )
        limited = [_refused(server, who) for who in ("ours", "http")]
    header = ("who", "waits", "accounts", "interval (s)", "times our requests", "requests / min")
    header += ("CPU s / min", "of a core", "KiB / wait", "longest block (ms)")
    return "\n".join(
        [
            markdown("Waits", header, rows),
            markdown(
                "One wait, and a server that responds with 429 for 2 seconds with `Retry-After: 2`",
                ("who", "requests in 2 s"),
                [("this provider", limited[0]), ("http provider", limited[1])],
            ),
        ]
    )


def _in_a_process(
    server: Counting, who: str, waits: int, accounts: int, interval: float | None, seconds: float
) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.waits", who, server.url]
    command += [str(waits), str(accounts), str(interval or 0), str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 300)
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def _refused(server: Counting, who: str) -> int:
    before = server.count()
    _in_a_process(server, f"{who}-limited", 1, 1, 0.5, 2.0)
    return server.count() - before


# in a process of its own


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("who", "url"):
        parser.add_argument(name)
    for name, kind in (("waits", int), ("accounts", int), ("interval", float), ("seconds", float)):
        parser.add_argument(name, type=kind)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(_measure(options))))


async def _measure(options: argparse.Namespace) -> dict[str, float]:
    random.seed(1)
    server = Counting(options.url)
    triggers = [_trigger(options, number) for number in range(options.waits)]
    # Airflow's first lookup of a connection takes 20 ms of the event loop; a triggerer has it behind it.
    await get_async_connection("http_default" if options.who.startswith("http") else "cfbilling_default")
    longest = [0.0]
    ticking = asyncio.create_task(_longest_block(longest))
    memory = _resident_kib()
    before, began = await asyncio.to_thread(server.count), time.monotonic()
    tasks = []
    for trigger in triggers:  # as the triggerer starts them
        tasks.append(asyncio.create_task(_first_event(trigger)))
        await asyncio.sleep(0)
    if not options.who.endswith("limited"):
        # Blocks are measured from the first wait's start over one poll of all of them; then all else, without
        # what measures the blocks.
        await asyncio.sleep(max(5.0, 0.006 * options.waits) + (options.interval or 60.0))
        before, began = await asyncio.to_thread(server.count), time.monotonic()
    ticking.cancel()
    cpu = await _cpu_per_second(options.seconds)
    minutes = (time.monotonic() - began) / 60
    cost = {
        "requests": (await asyncio.to_thread(server.count) - before) / minutes,
        "cpu": cpu * 60,
        "kib": (_resident_kib() - memory) / options.waits,
        "block": longest[0],
    }
    assert not any(task.done() for task in tasks), "a wait has ended"
    for task in tasks:
        task.cancel()
    return cost


async def _first_event(trigger: Any) -> None:
    async for _ in trigger.run():
        return


def _trigger(options: argparse.Namespace, number: int) -> Any:
    interval = options.interval or random.uniform(1, 60)
    limited = options.who.endswith("limited")
    if options.who.startswith("http"):
        from airflow.providers.http.triggers.http import HttpSensorTrigger

        os.environ["AIRFLOW_CONN_HTTP_DEFAULT"] = options.url
        return HttpSensorTrigger(endpoint="limited" if limited else "not-yet", poke_interval=interval)

    from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupConfigErrorTrigger

    account_id = f"{number % options.accounts:032x}"
    base_url = quote(f"{options.url}/{'limited' if limited else 'ok'}", safe="")
    os.environ["AIRFLOW_CONN_CFBILLING_DEFAULT"] = f"cfbilling://{account_id}:token@{base_url}"
    return CfBillingTopupConfigErrorTrigger("cfbilling_default", account_id, interval, "error", None)


async def _cpu_per_second(seconds: float) -> float:
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    return (time.process_time() - cpu) / (time.monotonic() - began)


async def _longest_block(longest: list[float]) -> None:
    """Check every few milliseconds whether the event loop still turns."""
    while True:
        due = time.monotonic() + _TICK
        await asyncio.sleep(_TICK)
        longest[0] = max(longest[0], time.monotonic() - due)


def _resident_kib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 1024


if __name__ == "__main__":
    main()
