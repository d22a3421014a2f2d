"""Let coverage lead the way (atheris): what reaches a new line of the parsers is kept, and changed further.

``python -m tests.fuzz.coverage_guided``, and what libFuzzer takes: ``-runs=1000000``, or a file that crashed.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["airflow_provider_cfbilling", "email"]):
    from tests.fuzz.responses import (
        GOOD,
        HEADERS,
        body_of,
        check_response,
        headers_taken,
        places,
        print_tally,
        tally,
    )

RUNS = 1_000_000
NAMES = list(GOOD)
STATUSES = (200, 201, 302, 400, 401, 403, 404, 429, 500, 524)
# What is put in a place of the JSON, as text.
ODD = [
    *(
        "null",
        "true",
        "0",
        "-1",
        "0.5",
        "1e11",
        "1e17",
        "1e18",
        "1e300",
        "1e999",
        "NaN",
        "9" * 30,
        "9" * 4400,
    ),
    *('""', '"in_1"', '"pending"', '"\\r\\n\\u001b"', '"https://a@b"', '"\\ud800"', "[]", "{}", "[[1]]"),
    *('{"a":1,"a":2}', "[" * 1500, '{"a":' * 1200),
]
began = time.monotonic()


def taken(data: bytes) -> None:
    """Take an input: a byte for the operation, one for the status, and the response's body or headers."""
    which, status, rest = data[0:1], data[1:2], data[2:]
    status_code = STATUSES[sum(status) % len(STATUSES)]
    if sum(which) % (len(NAMES) + 1) == len(NAMES):
        headers_taken(status_code, dict(zip(HEADERS, rest.decode("latin-1").split("\n"), strict=False)))
    else:
        check_response(NAMES[sum(which) % (len(NAMES) + 1)], status_code, rest)
    if tally.total() % RUNS == 0:  # libFuzzer ends the process by itself
        print_tally("coverage-guided (atheris)", time.monotonic() - began)


def changed(data: bytes, most: int, seed: int) -> bytes:
    """Change one place of the JSON, which bytes changed at random would hardly leave JSON; or those."""
    chance = random.Random(seed)
    try:
        value = json.loads(data[2:] if chance.random() < 0.7 else b"")
        *way, last = chance.choice(places(value)[1:])
    except (ValueError, RecursionError, IndexError):
        return bytes(atheris.Mutate(data, most))
    parent = value
    for key in way:
        parent = parent[key]
    parent[last] = "PLACE"
    return data[:2] + json.dumps(value).replace('"PLACE"', chance.choice(ODD), 1).encode()[: most - 2]


def write_seeds(folder: Path) -> None:
    for number, (name, (_, good)) in enumerate(GOOD.items()):
        (folder / name).write_bytes(bytes([number, 0]) + body_of(good))
    refusal = b'{"success": false, "errors": [{"code": 7003, "message": "no"}], "result": null}'
    (folder / "refusal").write_bytes(bytes([0, 3]) + refusal)
    headers = '120\n"default";r=0;t=60\nMon, 01 Jan 2026 00:00:00 GMT\n8a-AMS'
    (folder / "headers").write_bytes(bytes([len(NAMES), 7]) + headers.encode())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(Path(folder))
        atheris.Setup(
            [sys.argv[0], f"-runs={RUNS}", "-max_len=8000", *sys.argv[1:], folder],
            taken,
            custom_mutator=changed,
        )
        atheris.Fuzz()
