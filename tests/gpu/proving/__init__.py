"""The parts of `python -m tests.gpu.prove`: what is proved and measured on a GPU, and how."""
