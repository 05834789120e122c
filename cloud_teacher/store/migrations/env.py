"""Alembic's environment: runs the missing migrations on the given connection."""

from __future__ import annotations

from alembic import context

from cloud_teacher.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
# The caller's transaction holds the lock that makes other replicas wait.
context.run_migrations()
