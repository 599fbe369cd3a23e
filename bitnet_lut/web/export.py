"""The page and a model as a folder for any host of static files."""

import os
import shutil
from pathlib import Path

from bitnet_lut.formats.output import Output
from bitnet_lut.web.site import HEADERS, site

__all__ = ["export"]

_README = """\
This folder is a whole site: a language model that runs in the browser of whoever opens it.
Upload it as it is, with index.html wherever you like; all paths in it are relative.

To try it here:  python -m http.server --bind 127.0.0.1

A browser shares memory between threads only on pages whose host sends these headers with every
file. Without them the page works with one thread, and says so.

{headers}

The file _headers says the same to Netlify and Cloudflare Pages. nginx takes one line each:

{nginx}

The host must send .js as text/javascript, and should send .wasm as application/wasm.
model.gguf may be replaced by another model.
"""


def export(model: Path, folder: str | os.PathLike[str]) -> int:
    """Write the site with *model* to *folder*, which must be empty or not be there.

    Returns the bytes written. Raises what `site.site` does, and OSError if the folder has something
    in it or the disk is full; then nothing is left behind.
    """
    files = site(model)
    nbytes = sum(path.stat().st_size for path in files.values())
    with Output(folder, folder=True, nbytes=nbytes) as temporary:
        for name, path in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        for name, text in _notes().items():
            (temporary / name).write_text(text, encoding="utf-8")
    return nbytes


def _notes() -> dict[str, str]:
    lines = [f"{name}: {value}" for name, value in HEADERS.items()]
    nginx = [f'    add_header {name} "{value}" always;' for name, value in HEADERS.items()]
    readme = _README.format(
        headers="\n".join(f"    {line}" for line in lines), nginx="\n".join(nginx)
    )
    headers = "/*\n" + "".join(f"  {line}\n" for line in lines)
    return {"README.txt": readme, "_headers": headers, ".nojekyll": ""}
