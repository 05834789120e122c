"""What Alembic runs: the steps that are missing, on the connection it is given."""

from __future__ import annotations

from alembic import context

from cloud_teacher.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
# The transaction is the caller's, with the lock that keeps other replicas waiting.
context.run_migrations()
