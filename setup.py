"""Build the extension modules for the ABI baseline; tiers are target regions in the headers."""

import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEBUG = bool(os.environ.get("BITNET_LUT_DEBUG"))

if sys.platform == "win32":
    compile_args = ["/O2", "/std:c11", "/experimental:c11atomics", "/fp:precise"]
    link_args = []
else:
    compile_args = ["-O3", "-g0", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno"]
    compile_args += ["-fno-trapping-math"]  # or the clamps of exp keep its loops from vectors
    link_args = ["-pthread"]
if DEBUG:
    sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    compile_args += ["-O1", "-g", *sanitize]
    link_args += sanitize

macros = [] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")]
parts = sorted(str(path) for path in Path("pyx").glob("*.px[id]"))
sources = sorted(str(path) for path in Path("src").rglob("*.c"))
headers = sorted(str(path) for root in ("include", "src") for path in Path(root).rglob("*.h"))
extensions = [
    Extension(
        "bitnet_lut._native",
        ["pyx/_native.pyx", *sources],
        include_dirs=["include", "src"],
        depends=[*headers, *parts],
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        py_limited_api=not FREE_THREADED,
    )
]
directives = {
    "language_level": 3,
    "freethreading_compatible": True,
    "embedsignature": True,
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "initializedcheck": DEBUG,
    "cdivision": True,
}
setup(
    ext_modules=cythonize(
        extensions, include_path=["pyx"], build_dir="build", compiler_directives=directives
    ),
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
