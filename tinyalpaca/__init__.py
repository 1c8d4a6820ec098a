"""A tiny language model on minigrad."""
