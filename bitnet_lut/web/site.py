"""Which files make the page in the browser, by the paths that a browser asks for."""

from pathlib import Path

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import InputFile

__all__ = ["HEADERS", "MODEL_PATH", "media_type", "site"]

MODEL_PATH = "model.gguf"
"""Where the page looks for the model that it opens first, beside its index.html."""

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
"""What a host must send with every file, so that a page may share memory between threads."""

# Not asked of the machine, whose registry may be wrong: a module of another type does not run.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gguf": "application/octet-stream",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ts": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_FOLDER = Path(__file__).parent


def media_type(path: str) -> str:
    """The type that a file of the site is served as."""
    return _TYPES.get(Path(path).suffix, "text/plain; charset=utf-8")


def site(model: Path) -> dict[str, Path]:
    """All files of the site with *model* in it: {path below the root: file}.

    Raises FormatError if *model* is not a GGUF file, and OSError if it cannot be read.
    """
    _check_model(model)
    files = {
        path.relative_to(_FOLDER).as_posix(): path
        for path in sorted(_FOLDER.rglob("*"))
        if path.suffix in _TYPES or "LICENSE" in path.name
    }
    return {**files, MODEL_PATH: model}


def _check_model(model: Path) -> None:
    advice = "the browser reads GGUF files: bitnet-lut convert SOURCE -o model.gguf makes one"
    if model.is_dir():
        raise FormatError(f"{model}: a folder; {advice}")
    file = InputFile(model)
    if file.size < 4 or file.read(0, 4).tobytes() != b"GGUF":
        raise FormatError(f"{model}: not a GGUF file; {advice}")
