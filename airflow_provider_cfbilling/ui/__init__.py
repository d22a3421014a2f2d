"""The credits page in Airflow's UI. It only reads; nothing outside imports it but Airflow's plugin loader."""
