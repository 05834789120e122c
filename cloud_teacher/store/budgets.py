"""Daily budgets: the most a request can come to is set aside before it begins, and settled with its row in the ledger.

What is spent and what is set aside are in the database, so a budget holds for all replicas together. A reservation is the
replica's that made it, which renews it; those of one that was killed run out.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, func, select

from cloud_teacher.accounting.ledger import Budget, BudgetRequest
from cloud_teacher.store.database import now_ms
from cloud_teacher.store.tables import days, keys, reservations

RENEW_EVERY_S = 60
LASTS_MS = 5 * RENEW_EVERY_S * 1000


LOCK = select(keys.c.name).where(keys.c.name == bindparam("its_key")).with_for_update()
HELD = select(
    func.coalesce(func.sum(reservations.c.tokens), 0), func.coalesce(func.sum(reservations.c.nano_usd), 0)
).where(
    reservations.c.key == bindparam("its_key"),
    reservations.c.day == bindparam("its_day"),
    reservations.c.expires_ms > bindparam("now_ms"),
)
SPENT = select(days.c.prompt_tokens + days.c.completion_tokens, days.c.cost_nano_usd).where(
    days.c.key == bindparam("its_key"), days.c.day == bindparam("its_day")
)
HOLD = reservations.insert()


def reserve(connection: Connection, request: BudgetRequest, replica: str, *, again: bool) -> Budget | None:
    """Set it aside. Where the budget does not have it: which one, and nothing is set aside."""
    if again:  # it may be there from a commit whose answer was lost
        connection.execute(reservations.delete().where(reservations.c.id == request.id))
    whose = {"its_key": request.key, "its_day": request.day}
    # Requests of one key come one after the other here. SQLite lets one transaction write at a time anyway.
    connection.execute(LOCK, whose)
    # What is settled between the two statements is counted twice for a moment, and never not at all.
    held_tokens, held_nano_usd = connection.execute(HELD, {**whose, "now_ms": now_ms()}).one()
    spent_tokens, spent_nano_usd = connection.execute(SPENT, whose).one_or_none() or (0, 0)
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
            "expires_ms": now_ms() + LASTS_MS,
        },
    )
    return None


def release(connection: Connection, reservation: str) -> None:
    """It came to nothing."""
    connection.execute(reservations.delete().where(reservations.c.id == reservation))


def renew(connection: Connection, replica: str) -> None:
    """Keep a replica's own for a while longer, and clear away those that ran out."""
    mine = reservations.c.replica == replica
    connection.execute(reservations.update().where(mine).values(expires_ms=now_ms() + LASTS_MS))
    connection.execute(reservations.delete().where(reservations.c.expires_ms <= now_ms()))
