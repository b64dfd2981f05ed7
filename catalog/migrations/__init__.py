"""The database's shape, step by step (Alembic); ``catalog.store.migrate`` runs it."""
