"""Metrics for Prometheus and health for orchestrators, over HTTP."""
