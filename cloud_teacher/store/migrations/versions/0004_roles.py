"""Give keys a role instead of a flag for operators."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("role", sa.String(16), nullable=False, server_default="viewer"))
    op.execute(sa.text("UPDATE keys SET role = 'operator' WHERE operator"))
    op.drop_column("keys", "operator")
