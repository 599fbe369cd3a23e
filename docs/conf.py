"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

import contextlib
import io
import os
import re
from importlib.util import find_spec
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
if not (find_spec("torch") and find_spec("transformers")):
    exclude_patterns.append("api-torch.md")  # its docstrings can only be read with both
    suppress_warnings = ["toc.excluded", "toc.not_readable"]
html_theme = "furo"
html_title = f"bitnet_lut {release}"

myst_heading_anchors = 3
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "py:obj"

# "<|name|>" would be a substitution.
_CONTROL = re.compile(r"(?<!`)<\|(\w+)\|>")
# A trailing underscore would make a name a link.
_TRAILING = re.compile(r"(?<![`\w])([a-z]\w*)_(?![\w`])")
# "name: text" or "name, other: text": how docstrings list arguments and attributes.
_ITEM = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")
_NEXT_ITEM = re.compile(r"(?<=\.) (?=[a-z_]\w*: )")


def list_arguments(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]):
    """Make the lines that explain arguments a list, which is what reStructuredText calls them."""
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        found += [_arguments(paragraph) if _ITEM.match(paragraph) else paragraph, ""]
    text = _CONTROL.sub(r"``<|\1|>``", _TRAILING.sub(r"\1\\_", "\n".join(found)))
    lines[:] = text.split("\n")


def _arguments(paragraph: str) -> str:
    """A paragraph that begins with an argument, with a list item for each; sentences follow it."""
    items: list[str] = []
    sentences: list[str] = []
    for line in paragraph.split("\n"):
        starts_sentence = line[:1].isupper() and items[-1].endswith(".")
        if sentences or starts_sentence:
            sentences.append(line)
        elif _ITEM.match(line):
            items.append(line)
        else:
            items[-1] += " " + line.strip()
    split = [part for item in items for part in _NEXT_ITEM.split(item)]
    listed = [_ITEM.sub(r"* **\1**: ", item) for item in split]
    return "\n".join([*listed, *([""] if sentences else []), *sentences])


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
