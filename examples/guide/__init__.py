"""The guide: pages in Markdown and the pictures in them. `python -m examples.guide build`."""
