"""A forecast registered before its runs, and what came of it."""
