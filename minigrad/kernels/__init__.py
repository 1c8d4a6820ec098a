"""Fast pairs (forward, backward) for some ops, one package a backend. See `minigrad.op`."""
