"""Alembic's hook: runs the revisions on the connection that `upgrade` opened."""

from alembic import context

from exchange.migrations import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=list(METADATA))
with context.begin_transaction():
    context.run_migrations()
