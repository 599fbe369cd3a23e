"""``bitnet-lut info`` shows what this machine can do."""

import argparse

SUMMARY = "show what this machine can do and what is used"
EXAMPLE = "bitnet-lut info"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: ``info`` has no arguments."""


def execute(options: argparse.Namespace) -> int:
    """Print version, tier, threads, features, and the state of every tier."""
    from bitnet_lut import __version__, cpu_info

    info = cpu_info()
    print(f"bitnet_lut {__version__}")
    print(f"isa      {info.isa}: {info.reason}")
    print(f"threads  {info.threads}")
    print(f"features {' '.join(info.features) or 'none'}")
    for tier, verdict in info.tiers.items():
        print(f"tier     {tier}: {verdict}")
    return 0
