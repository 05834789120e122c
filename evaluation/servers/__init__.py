"""Start the services and the baselines that benchmarks compare."""
