"""The teacher in the cloud: guidance out."""
