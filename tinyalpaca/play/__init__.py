"""A local page to try a model on: `page.html` sends requests, `server.py` answers them."""

from tinyalpaca.play.server import PlayServer

__all__ = ["PlayServer"]
