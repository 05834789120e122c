"""The cloud: a service in which a large teacher model writes guidance."""
