"""A model to play with on a page of one's own machine: `server.py` answers, `page.html` asks."""

from tinyalpaca.play.server import PlayServer

__all__ = ["PlayServer"]
