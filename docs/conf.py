"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

import contextlib
import io
import os
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import bitnet_lut
from bitnet_lut.cli import main

project = "bitnet_lut"
author = "the bitnet_lut authors"
release = version = bitnet_lut.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bitnet_lut {release}"

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "py:obj"

# A trailing underscore would make a name a link.
_TRAILING = re.compile(r"(?<![`\w])([a-z]\w*)_(?![\w`])")
# "name: text" or "name, other: text": how docstrings list arguments and attributes.
_ITEM = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")


def list_arguments(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]):
    """Make the lines that explain arguments a list, which is what reStructuredText calls them."""
    found: list[str] = []
    item = False
    for line in lines:
        if match := _ITEM.match(line):
            if found and found[-1] and not item:
                found.append("")
            found.append(f"* **{match[1]}**: {line[match.end() :]}")
            item = True
        elif item and line.startswith(" "):
            found.append(f"  {line.strip()}")
        elif item and line:
            # A plain line after an item goes on with it, unless it starts a sentence of its own.
            starts = found[-1].endswith(".") and line[0].isupper()
            found += ["", line] if starts else [f"  {line}"]
            item = not starts
        else:
            found.append(line)
            item = False
    lines[:] = [_TRAILING.sub(r"\1\\_", line) for line in found]


class CommandHelp(SphinxDirective):
    """Show what ``bitnet-lut ARGUMENTS --help`` prints, so that this page cannot go stale."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Run the command and quote it."""
        arguments = self.arguments[0].split() if self.arguments else []
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*arguments, "--help"])
        return [nodes.literal_block(text=printed.getvalue(), language="text")]


def setup(app: Sphinx) -> None:
    """Add both to Sphinx."""
    os.environ |= {"COLUMNS": "88", "NO_COLOR": "1"}
    app.connect("autodoc-process-docstring", list_arguments)
    app.add_directive("command-help", CommandHelp)
