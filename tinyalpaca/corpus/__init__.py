"""Finding texts, keeping them as tokens, and the order in which windows come."""
