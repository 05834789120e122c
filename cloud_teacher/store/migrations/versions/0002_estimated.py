"""Mark rows of the ledger whose usage is an estimate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("estimated", sa.Boolean, nullable=False, server_default=sa.false()))
