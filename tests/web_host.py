"""The page of the browser, served in a thread."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bitnet_lut.demo import MODEL
from bitnet_lut.web.host import Host
from bitnet_lut.web.site import site


@contextmanager
def hosted(model: Path = MODEL, more: Mapping[str, Path] | None = None) -> Iterator[Host]:
    """A host of the page with *model*, and of *more* files: {path below the root: file}."""
    with Host({**site(model), **(more or {})}, 0) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join(30)
            assert not thread.is_alive()
