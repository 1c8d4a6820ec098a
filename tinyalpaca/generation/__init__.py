"""Writing and scoring text with a model. `generator.py` is what others use, and where to begin."""

from tinyalpaca.generation.generator import Continuation, Generator, Prompt, Sampling, Step

__all__ = ["Continuation", "Generator", "Prompt", "Sampling", "Step"]
