"""The parts of generation: cached inference, sampling, streams, and what a person sees."""
