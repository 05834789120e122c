"""Logs and OpenTelemetry. The only package that imports opentelemetry."""
