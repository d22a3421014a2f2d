"""What Airflow reads about this package. Imports nothing: a fault here breaks ``import airflow`` itself."""

_INTEGRATION = "Cloudflare AI Gateway Billing"
_PACKAGE = "airflow_provider_cfbilling"


def get_provider_info() -> dict[str, object]:
    """Return the provider's metadata, as Airflow's ``provider_info.schema.json`` describes it."""
    return {
        "package-name": "airflow-provider-cfbilling",
        "name": _INTEGRATION,
        "description": "Top up Cloudflare AI Gateway credits and watch the automatic top-up.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://developers.cloudflare.com/ai-gateway/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.hooks.cfbilling"]}],
        "operators": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.operators.cfbilling"]}
        ],
        "sensors": [{"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.sensors.cfbilling"]}],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.triggers.cfbilling"]}
        ],
        "extra-links": [
            f"{_PACKAGE}.links.CfBillingDashboardLink",
            f"{_PACKAGE}.links.CfBillingInvoiceLink",
        ],
        "config": {
            "cfbilling": {
                "description": "The page AI Gateway credits in Airflow's UI (Airflow 3.1 and later).",
                "options": {
                    "credits_page": {
                        "description": "Whether there is such a page.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "True",
                    },
                    "page_connections": {
                        "description": (
                            "Ids of connections of a secrets backend that the page shows, separated by "
                            "commas: they cannot be listed. Connections of the metadata database and of the "
                            "environment are shown without it."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "cfbilling_default,cfbilling_research",
                        "default": "",
                    },
                },
            }
        },
        "connection-types": [
            {
                "connection-type": "cfbilling",
                "hook-class-name": f"{_PACKAGE}.hooks.cfbilling.CfBillingHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port"],
                    "relabeling": {
                        "login": "Account ID",
                        "password": "API token",
                        "host": "API base URL",
                    },
                    "placeholders": {
                        "login": "32 hex digits, from the dashboard's address bar",
                        "password": "token with AI Gateway: Read (watch) or Edit (top up)",
                        "host": "https://api.cloudflare.com/client/v4",
                    },
                },
                "conn-fields": {
                    "email": {
                        "label": "Email",
                        "description": "Only with a Global API Key in place of the API token.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "connect_timeout": {
                        "label": "Connect timeout (seconds)",
                        "schema": {"type": ["number", "null"]},
                    },
                    "read_timeout": {
                        "label": "Read timeout (seconds)",
                        "schema": {"type": ["number", "null"]},
                    },
                    "max_attempts": {
                        "label": "Attempts of a read",
                        "description": "A top-up is sent once, whatever this says.",
                        "schema": {"type": ["integer", "null"]},
                    },
                },
            }
        ],
    }
