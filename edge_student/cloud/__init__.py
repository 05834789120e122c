"""Client of the cloud, with a circuit breaker."""
