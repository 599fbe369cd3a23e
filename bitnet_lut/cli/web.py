"""``bitnet-lut web`` runs a model in the browser."""

import argparse
import sys
from pathlib import Path

from bitnet_lut.cli.options import natural

SUMMARY = "run a model in the browser, on its own page"
EXAMPLE = "bitnet-lut web -m model.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``web``."""
    parser.add_argument(
        "-m", "--model", metavar="FILE", help="GGUF file; default: the demonstration model"
    )
    parser.add_argument("--port", type=natural, default=8090, help="default 8090; 0: a free one")
    parser.add_argument("--no-open", action="store_true", help="do not open the browser")
    parser.add_argument(
        "--export", metavar="DIR", help="write the page and the model for any host of files instead"
    )


def execute(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C, or export it."""
    import webbrowser

    from bitnet_lut.demo import MODEL
    from bitnet_lut.web.export import export
    from bitnet_lut.web.host import Host
    from bitnet_lut.web.site import site

    model = MODEL if options.model is None else Path(options.model)
    if options.export is not None:
        nbytes = export(model, options.export)
        print(f"{options.export}: {nbytes:,} bytes; its README.txt says what the host must send")
        return 0
    if options.port > 65535:
        raise ValueError(f"--port {options.port}: the largest port is 65535")
    with Host(site(model), options.port) as host:
        print(f"{host.address} is ready; Ctrl-C ends it", file=sys.stderr, flush=True)
        if not options.no_open:
            webbrowser.open(host.address)
        try:
            host.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)  # behind the ^C of the terminal
    return 0
