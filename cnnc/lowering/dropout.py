"""Bodies of the dropout mask."""
