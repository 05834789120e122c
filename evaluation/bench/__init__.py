"""`gkt bench`: performance of the services and of baselines."""
