"""Where the reference data lies, if it is there: for tests parametrized over its files."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "golden"
GOLDEN: Path | None = _FOLDER if _FOLDER.is_dir() else None
