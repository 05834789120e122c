"""Code that both sides use: protocol, server, observability, prompting, models, errors. Imports no other package of gkt."""
