"""Other people's private training under our conformance and audit: ``opacus`` and ``flower``, each from a few lines.

Both return the same findings as ``fedembed conformance`` does, from the same checks, and canary scores for an audit.
docs/adapters.md has the lines to write and what is known to be found.
"""
