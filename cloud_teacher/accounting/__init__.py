"""What a request used and cost; the ledger protocol."""
