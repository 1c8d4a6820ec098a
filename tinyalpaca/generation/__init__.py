"""Writing and scoring text with a model. Begin with `generator.py`, the public part."""

from tinyalpaca.generation.generator import Continuation, Generator, Prompt, Sampling, Step

__all__ = ["Continuation", "Generator", "Prompt", "Sampling", "Step"]
