"""How this was installed, and the command that installs its extras.

The distribution has another name than this package, because `minigrad` is another project on the
public index. So no message may say `pip install minigrad[...]`. If that project's files are
installed into this folder, neither package works, and the import is an error that says so.
"""

from __future__ import annotations

import os
import re

FOLDER = os.path.dirname(__file__)
# What the other project has in a folder of this name, and this one has not.
STRANGERS = re.compile(r"nn\.py|engine\.c|engine\..*(so|pyd)")


def strangers_files(folder: str = FOLDER) -> list[str]:
    """The files of the other project that lie in a folder."""
    return sorted(name for name in os.listdir(folder) if STRANGERS.fullmatch(name))


def require_own_files() -> None:
    """Raise ImportError if another project has written into this package's folder."""
    found = strangers_files()
    if found:
        raise ImportError(
            f"{FOLDER} holds files of two projects called minigrad: {', '.join(found)} "
            "belong to the one on the public index, which is another project. To mend it, "
            f"pip uninstall minigrad, then install this one again: {_again()}"
        )


def install_line(*extras: str) -> str:
    """The command that installs this project with extras, in the way it was installed here.

    For a checkout it is to be typed in its folder; otherwise it names the distribution.
    """
    wanted = f"[{','.join(extras)}]" if extras else ""
    if os.path.isfile(os.path.join(os.path.dirname(FOLDER), "pyproject.toml")):
        return f'pip install -e ".{wanted}"'
    return f'pip install "{_distribution()}{wanted}"'


def _again() -> str:
    """The commands that install this project again, whose files another one has taken away."""
    name = _distribution()  # pip installs nothing whose version is there already
    return install_line() if name == "." else f"pip uninstall {name}, and then {install_line()}"


def _distribution() -> str:
    """The name of the distribution that this file came with."""
    from importlib import metadata  # which is slow to import, and wanted for messages alone

    here = "/".join([os.path.basename(FOLDER), os.path.basename(__file__)])
    for found in metadata.distributions():
        if any(file.as_posix() == here for file in found.files or ()):
            return found.name
    return "."  # copied by hand, as nothing that pip knows


__all__ = [
    "install_line",
    "require_own_files",
    "strangers_files",
]
