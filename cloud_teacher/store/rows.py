"""Statements that write rows to the ledger and read usage from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, Insert, select
from sqlalchemy.dialects import postgresql, sqlite

from cloud_teacher.accounting.ledger import LedgerRow
from cloud_teacher.store.database import reading
from cloud_teacher.store.tables import days, ledger, reservations
from shared.prices import NANO
from shared.protocol import guidance

INSERTS: dict[str, Callable[..., Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
SUMS = tuple(column.name for column in days.columns if not column.primary_key)


@dataclass(frozen=True, slots=True)
class DayUsage:
    """Usage of one key on one day. `requests` includes reused responses; their tokens are in `reused_tokens` only."""

    key: str
    day: date
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reused_requests: int
    reused_tokens: int
    cost_nano_usd: int

    def to_wire(self) -> guidance.DayUsage:
        fields = asdict(self)
        cost_usd = fields.pop("cost_nano_usd") / NANO
        return guidance.DayUsage(**fields, cost_usd=cost_usd)


ADD_ROW = ledger.insert()


@cache
def _add_day(dialect: str) -> Insert:
    """Return the upsert of daily sums. Building it takes longer than running it, so it is built once."""
    insert = INSERTS[dialect](days)
    added = {name: days.c[name] + insert.excluded[name] for name in SUMS}
    statement: Insert = insert.on_conflict_do_update(index_elements=["key", "day"], set_=added)
    return statement


def write(connection: Connection, entries: Sequence[tuple[LedgerRow, str | None]], *, again: bool) -> None:
    """Write rows, add them to the daily sums, and settle their reservations.

    `again` is set if a former attempt may have written some of them.
    """
    rows = [row for row, _ in entries]
    if again:
        known = set(connection.scalars(select(ledger.c.id).where(ledger.c.id.in_([row.id for row in rows]))))
        rows = [row for row in rows if row.id not in known]
    if rows:
        connection.execute(ADD_ROW, [asdict(row) for row in rows])
        # Always in the same order, so that two replicas that write the same days cannot deadlock.
        connection.execute(_add_day(connection.dialect.name), _sums(rows))
    settled = [reservation for _, reservation in entries if reservation]
    if settled:
        connection.execute(reservations.delete().where(reservations.c.id.in_(settled)))


def _sums(rows: Sequence[LedgerRow]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, date], dict[str, int]] = defaultdict(lambda: dict.fromkeys(SUMS, 0))
    for row in rows:
        day = sums[row.key, row.day]
        day["requests"] += 1
        day["prompt_tokens"] += row.prompt_tokens
        day["cached_tokens"] += row.cached_tokens
        day["completion_tokens"] += row.completion_tokens
        day["reused_requests"] += row.reused is not None
        day["reused_tokens"] += row.reused_tokens
        day["cost_nano_usd"] += row.cost_nano_usd
    return [{"key": key, "day": day, **sums[key, day]} for key, day in sorted(sums)]


def usage(
    engine: Engine, *, key: str | None = None, since: date | None = None, until: date | None = None
) -> list[DayUsage]:
    """Return the usage by day and key, of one key or of all, both days included."""
    query = select(days).order_by(days.c.day, days.c.key)
    if key is not None:
        query = query.where(days.c.key == key)
    if since is not None:
        query = query.where(days.c.day >= since)
    if until is not None:
        query = query.where(days.c.day <= until)
    with reading(engine).begin() as connection:
        return [DayUsage(**row) for row in connection.execute(query).mappings()]
