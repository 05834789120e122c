"""Every message that crosses HTTP, and its encoding."""
