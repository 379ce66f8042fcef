"""orchctl moves scheduled jobs from systemd timers and cron to a self-hosted Prefect server."""

__version__ = "0.1.0"
