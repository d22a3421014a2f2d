"""The contract the sandbox ships, tried on the sandbox itself with generated requests, good and bad."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import requests
import schemathesis
import yaml

from airflow_provider_cfbilling.sandbox import Sandbox

CONTRACT = files("airflow_provider_cfbilling.sandbox").joinpath("openapi.yaml").read_text()
REFUSED = {"$ref": "#/components/responses/Error"}
ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")
OPERATIONS = (
    "createTopup",
    "checkTopupStatus",
    "getTopupConfig",
    "getTopupEligibility",
    "getTopupLimits",
    "getCreditBalance",
    "getInvoiceHistory",
    "getInvoicePreview",
    "getUsageHistory",
    "getSpendingLimit",
)


@cache
def load_contract() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the contract, and its paths by operation: each has one."""
    contract = yaml.safe_load(CONTRACT)
    paths = {}
    for path, item in contract["paths"].items():
        (operation,) = (item[method] for method in ("get", "post") if method in item)
        # What any route may respond: no credentials, no such route, no such method.
        operation["responses"] |= dict.fromkeys(("401", "404", "405"), REFUSED)
        paths[operation["operationId"]] = {path: item}
    return contract, paths


@pytest.fixture(scope="module")
def patient_sandbox() -> Iterator[Sandbox]:
    with Sandbox(rate_quota=1_000_000) as sandbox:
        yield sandbox


@pytest.fixture(params=OPERATIONS)
def contract(request: pytest.FixtureRequest, patient_sandbox: Sandbox) -> Iterator[schemathesis.BaseSchema]:
    """The contract of one operation. Not at collection: to generate requests takes seconds."""
    from schemathesis.config import SchemathesisConfig

    request.node._nodeid = request.node.nodeid  # schemathesis reads it; items of this pytest have none
    whole, paths = load_contract()
    generation = {"deterministic": True, "max-examples": 15, "no-shrink": True, "database": "none"}
    yield schemathesis.openapi.from_dict(
        {**whole, "paths": paths[request.param]},
        config=SchemathesisConfig.from_dict({"generation": generation}),
    )
    statuses = [seen.status or 0 for seen in patient_sandbox.requests(request.param)]
    # They prove little where everything was refused. Of checkTopupStatus, no generated id exists.
    assert 200 in statuses or request.param == "checkTopupStatus"
    assert max(statuses) >= 400


@schemathesis.pytest.from_fixture("contract").parametrize()
def test_responses_match_the_contract(patient_sandbox: Sandbox, case: schemathesis.Case):
    from schemathesis.specs.openapi import checks

    # A made-up account would only ever be refused.
    if ACCOUNT_ID.fullmatch(str(case.path_parameters.get("account_id"))):
        case.path_parameters["account_id"] = patient_sandbox.account_id
    # Some methods the contract leaves out do exist, for dashboard sessions.
    # Cloudflare refuses credentials that are missing or malformed with 400, which `ignored_auth` does not
    # expect: the second request.
    not_meant = [checks.unsupported_method, checks.allow_header_conformance, checks.ignored_auth]
    if case.operation.definition.raw["operationId"] == "createTopup":
        # The account's limits and cards refuse what the schema admits.
        not_meant.append(checks.positive_data_acceptance)
    case.call_and_validate(
        patient_sandbox.base_url,
        headers={"Authorization": f"Bearer {patient_sandbox.token}"},
        excluded_checks=not_meant,
        timeout=5,
    )
    case.call_and_validate(
        patient_sandbox.base_url,
        headers={"Authorization": "Bearer "},
        excluded_checks=[*not_meant, checks.positive_data_acceptance],
        timeout=5,
    )


def test_every_operation_of_the_contract_is_tried():
    assert set(OPERATIONS) == set(load_contract()[1])


def test_contract_is_served_as_shipped(sandbox: Sandbox):
    response = requests.get(f"{sandbox.url}/openapi.yaml", timeout=5)

    assert response.text == CONTRACT
