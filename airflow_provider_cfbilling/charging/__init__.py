"""When a card may be charged, and what became of it. Knows nothing of Airflow."""
