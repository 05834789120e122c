"""Usage and cost of requests, and the protocol of the ledger."""
