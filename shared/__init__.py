"""What both sides speak: messages, errors, streams, chat templates, models. Imports neither side."""
