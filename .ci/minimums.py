"""Print the lowest version of each dependency that pyproject.toml allows, one a line, for pip.

Left out are the extras of development and torch, whose lowest versions exclude each other.
"""

import tomllib
from pathlib import Path

EXTRAS = ("hub", "chat", "grammar", "test")

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *(one for name in EXTRAS for one in extras[name])]
print(*sorted({requirement.replace(">=", "==") for requirement in wanted}), sep="\n")
