"""Daily budgets: a request's upper bound is reserved before it runs, and settled with its row in the ledger.

Spent and reserved amounts are in the database, so a budget holds for all replicas together. The replica that made a reservation
renews it; the reservations of a replica that was killed expire.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select

from cloud_teacher.accounting.ledger import Budget, BudgetRequest
from cloud_teacher.store.database import now_ms
from cloud_teacher.store.tables import days, keys, reservations

RENEWAL_INTERVAL_S = 60
LIFETIME_MS = 5 * RENEWAL_INTERVAL_S * 1000


LOCK = select(keys.c.name).where(keys.c.name == bindparam("of_key")).with_for_update()
HELD = select(
    func.coalesce(func.sum(reservations.c.tokens), 0), func.coalesce(func.sum(reservations.c.nano_usd), 0)
).where(
    reservations.c.key == bindparam("of_key"),
    reservations.c.day == bindparam("of_day"),
    reservations.c.expires_ms > bindparam("now_ms"),
)
SPENT = select(days.c.prompt_tokens + days.c.completion_tokens, days.c.cost_nano_usd).where(
    days.c.key == bindparam("of_key"), days.c.day == bindparam("of_day")
)
HOLD = reservations.insert()


def reserve(connection: Connection, request: BudgetRequest, replica: str, *, again: bool) -> Budget | None:
    """Reserve the upper bound of a request. Returns the budget that has too little left, or None.

    `again` is set if a former attempt may have made the reservation.
    """
    if again:
        connection.execute(reservations.delete().where(reservations.c.id == request.id))
    which = {"of_key": request.key, "of_day": request.day}
    # The lock serializes requests of one key. SQLite has one writer at a time anyway.
    connection.execute(LOCK, which)
    # A reservation that is settled between the two statements is counted twice for a moment, but never missed.
    held_tokens, held_nano_usd = connection.execute(HELD, {**which, "now_ms": now_ms()}).one()
    spent_tokens, spent_nano_usd = connection.execute(SPENT, which).one_or_none() or (0, 0)
    if request.daily_tokens is not None and spent_tokens + held_tokens + request.tokens > request.daily_tokens:
        return "tokens"
    if (
        request.daily_nano_usd is not None
        and spent_nano_usd + held_nano_usd + request.nano_usd > request.daily_nano_usd
    ):
        return "money"
    connection.execute(
        HOLD,
        {
            "id": request.id,
            "key": request.key,
            "day": request.day,
            "tokens": request.tokens,
            "nano_usd": request.nano_usd,
            "replica": replica,
            "expires_ms": now_ms() + LIFETIME_MS,
        },
    )
    return None


def release(connection: Connection, reservation: str) -> None:
    """Cancel a reservation."""
    connection.execute(reservations.delete().where(reservations.c.id == reservation))


def renew(connection: Connection, replica: str) -> None:
    """Extend a replica's reservations, and delete expired ones."""
    mine = reservations.c.replica == replica
    connection.execute(reservations.update().where(mine).values(expires_ms=now_ms() + LIFETIME_MS))
    connection.execute(reservations.delete().where(reservations.c.expires_ms <= now_ms()))
