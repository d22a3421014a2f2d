"""Apache Airflow provider for Cloudflare's AI Gateway Billing API."""

__version__ = "0.1.0"
