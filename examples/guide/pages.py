"""Makes the guide's pages with Sphinx. Formulas become MathML, which browsers draw themselves.

So a page needs no script and nothing from a network, formulas included.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from minigrad.installing import install_line

HERE = Path(__file__).parent
CONFIGURATION = """
project = "minigrad and TinyAlpaca"
author = "The minigrad authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "examples.guide.pages"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
root_doc = "index"
autodoc_typehints = "none"
default_role = "literal"
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]
"""


def build_pages(out: str | Path) -> int:
    """Make the pages; a warning of Sphinx's, such as a link that leads nowhere, is an error.

    Returns:
        0 if all went well.
    """
    try:
        import furo  # noqa: F401
        import latex2mathml  # noqa: F401
        import myst_parser  # noqa: F401
        from sphinx.cmd.build import build_main
    except ImportError as error:
        print(f"The pages need {error.name}: {install_line('docs')}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        for page in HERE.glob("*.md"):
            target = "index.md" if page.name == "README.md" else page.name
            text = page.read_text(encoding="utf-8")
            if target == "index.md":
                pages = "\n".join(re.findall(r"\]\((\w+)\.md\)", text))
                text += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"
            (source / target).write_text(text, encoding="utf-8")
        shutil.copy(HERE / "surprise.svg", source)
        (source / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
        status = build_main(["-q", "-W", "--keep-going", "-b", "html", folder, str(out)])
    if status == 0:
        print(f"{Path(out) / 'index.html'}")
    return int(status)


def setup(app: Any) -> dict[str, Any]:
    """Sphinx's door: formulas are drawn by the functions below."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon looks
    return {"parallel_read_safe": True}


def _plain(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: what would be markup is shown as it stands.

    A module's is shown letter by letter, since its formulas are set in columns.
    """
    if what == "module":
        lines[:] = ["::", "", *("   " + line for line in lines), ""]
        return
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        parts = line.split("`")  # every other part is code
        parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "`".join(parts)


def _inline(translator: Any, node: Any) -> None:
    translator.body.append(_mathml(node.astext(), "inline"))
    _skip()


def _block(translator: Any, node: Any) -> None:
    translator.body.append(f'<div class="math">{_mathml(node.astext(), "block")}</div>')
    _skip()


def _skip() -> None:
    from docutils.nodes import SkipNode

    raise SkipNode


def _mathml(formula: str, display: str) -> str:
    """A formula as MathML, with its source for who reads the page aloud."""
    from latex2mathml.converter import convert

    made: str = convert(formula, display=display)
    return made.replace("<math", f'<math alttext="{escape(formula, quote=True)}"', 1)
