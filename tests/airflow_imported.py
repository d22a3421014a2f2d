"""What Airflow's plugins need of it."""

from airflow.providers.common.compat.sdk import AirflowPlugin, conf  # noqa: F401
