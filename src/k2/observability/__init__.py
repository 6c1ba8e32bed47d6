"""What operators see of the running services: log lines and metrics."""
