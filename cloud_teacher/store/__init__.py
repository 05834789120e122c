"""The cloud's database: keys, budgets, the ledger. SQLite or PostgreSQL; the only package that imports SQLAlchemy."""
