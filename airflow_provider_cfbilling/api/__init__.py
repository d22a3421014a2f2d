"""Cloudflare's AI Gateway Billing API over HTTP. Knows nothing of Airflow."""
