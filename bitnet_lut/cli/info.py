"""``bitnet-lut info`` shows what this machine can do."""

import argparse

SUMMARY = "show what this machine can do and what is used"
EXAMPLE = "bitnet-lut info"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: ``info`` has no arguments."""


def execute(options: argparse.Namespace) -> int:
    """Print version, tier, threads, features, the state of every tier, and what was tuned."""
    from bitnet_lut import __version__, cpu_info
    from bitnet_lut.runtime.choose import machine_key, measurements_file, read_measurements

    info = cpu_info()
    print(f"bitnet_lut {__version__}")
    print(f"isa      {info.isa}: {info.reason}")
    print(f"threads  {info.threads}")
    print(f"features {' '.join(info.features) or 'none'}")
    for tier, verdict in info.tiers.items():
        print(f"tier     {tier}: {verdict}")
    path = measurements_file()
    known = read_measurements().get(machine_key(info.isa, info.threads), {})
    kept = f"{len(known)} shapes measured by bitnet-lut tune for this tier and these threads"
    print(f"tuned    {path or 'nowhere: there is no cache folder'}: {kept}")
    return 0
