"""Runs a WASI program by wasmtime: python wasi.py PROGRAM [FILE...]; files are opened by path."""

import sys
from pathlib import Path

import wasmtime


def main() -> int:
    """Exit status of the program."""
    program, *files = sys.argv[1:]
    settings = wasmtime.Config()
    settings.wasm_relaxed_simd = True
    settings.wasm_threads = True
    engine = wasmtime.Engine(settings)
    store = wasmtime.Store(engine)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.argv = [program, *files]
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for folder in {str(Path(name).parent) for name in files}:
        wasi.preopen_dir(folder, folder)
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, program))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as end:
        return end.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
