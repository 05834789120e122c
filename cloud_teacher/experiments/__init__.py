"""Live experiments: statistics that may be read at any time, verdicts, the rollout controller, and simulations of all three."""
