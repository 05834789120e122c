"""The Teacher protocol, its backends (vLLM, OpenAI chat and completions, replay), loading, and the failover pool."""
