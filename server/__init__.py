"""The coordinator's side: rounds, aggregation, vocabulary, checkpoints."""
