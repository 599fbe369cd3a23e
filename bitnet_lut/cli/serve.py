"""``bitnet-lut serve`` answers OpenAI clients over HTTP."""

import argparse
import logging
import os
import sys
from pathlib import Path

from bitnet_lut.cli.generating import add_model_options, open_model
from bitnet_lut.cli.options import natural, positive, text

SUMMARY = "serve a model over HTTP, as the OpenAI API"
EXAMPLE = "bitnet-lut serve -m model.gguf --port 8080"

_KEY = "BITNET_LUT_API_KEY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    add_model_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine only")
    parser.add_argument("--port", type=natural, default=8080, help="default 8080; 0: a free one")
    parser.add_argument("--name", type=text, help="of the model, for clients; default: its file")
    parser.add_argument(
        "--api-key-file", metavar="FILE", help=f"keys, one a line; ${_KEY} holds one more"
    )
    parser.add_argument("--cors", action="append", default=[], metavar="ORIGIN", help="allow it")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its key, PEM")
    parser.add_argument(
        "--max-requests", type=positive, default=256, help="that run or wait; more get a 429"
    )
    parser.add_argument(
        "--max-prompt-tokens", type=positive, default=200_000, help="of all that run or wait"
    )
    parser.add_argument(
        "--prefix-cache", type=natural, default=1024, metavar="MB", help="earlier texts; 0: none"
    )
    parser.add_argument(
        "--cache-memory",
        type=positive,
        metavar="MB",
        help="for all texts that run or are kept; default: half of what is free",
    )
    parser.add_argument(
        "--grace", type=natural, default=30, metavar="SECONDS", help="for texts, after SIGTERM"
    )


def execute(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        from bitnet_lut.server.app import App
        from bitnet_lut.server.run import Listening, Server
        from bitnet_lut.server.settings import Settings
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'bitnet_lut[server]'") from None
    if bool(options.tls_cert) != bool(options.tls_key):
        raise ValueError("--tls-cert and --tls-key belong together")
    keys = _api_keys(options.api_key_file)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    model = open_model(options)
    model.warm_up()
    settings = Settings(
        name=options.name or _name(options.model),
        api_keys=keys,
        cors=options.cors,
        most_requests=options.max_requests,
        most_prompt_tokens=options.max_prompt_tokens,
        prefix_bytes=options.prefix_cache * 10**6,
        cache_bytes=options.cache_memory and options.cache_memory * 10**6,
    )
    where = Listening(options.host, options.port, options.grace, options.tls_cert, options.tls_key)
    Server(App(model, settings), where, _tell).run()
    return 0


def _tell(address: str) -> None:
    print(f"{address} is ready; its API is at {address}/v1", file=sys.stderr, flush=True)


def _name(source: str | None) -> str:
    return "demo" if source is None else Path(source.removeprefix("hf://")).stem or "model"


def _api_keys(file: str | None) -> list[str]:
    """All keys; ValueError for a file without one."""
    keys = [os.environ[_KEY]] if os.environ.get(_KEY) else []
    if file is not None:
        found = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
        if not any(found):
            raise ValueError(f"{file}: no key in it")
        keys += filter(None, found)
    if any(not key.isascii() for key in keys):
        raise ValueError("an API key is not ASCII text")
    if keys:
        print(f"{len(keys)} API keys", file=sys.stderr)
    return keys
