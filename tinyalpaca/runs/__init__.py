"""The folder of a run, which training writes atomically and generation reads."""

from tinyalpaca.runs.checkpoint import Loaded, find_model, load_model, save_model
from tinyalpaca.runs.run_folder import RunFolder
from tinyalpaca.runs.run_lock import FolderInUse

__all__ = ["FolderInUse", "Loaded", "RunFolder", "find_model", "load_model", "save_model"]
