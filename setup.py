"""Build the extension module for the ABI baseline; only src/tiers has regions that exceed it."""

import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
DEBUG = bool(os.environ.get("BITNET_LUT_DEBUG"))

if sys.platform == "win32":
    compile_args = ["/O2", "/std:c11", "/experimental:c11atomics", "/fp:precise"]
    link_args = []
else:
    compile_args = ["-O3", "-g0", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno"]
    compile_args += ["-fno-trapping-math"]  # or the clamps of exp keep its loops from vectors
    compile_args += ["-fvisibility=hidden"]  # only the module's init function is exported
    link_args = ["-pthread"]
if DEBUG:
    sanitize = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    compile_args += ["-O1", "-g", *sanitize]
    link_args += sanitize

macros = [] if FREE_THREADED else [("Py_LIMITED_API", "0x030B0000")]
parts = sorted(str(path) for path in Path("pyx").glob("*.px[id]"))
sources = [str(path) for path in Path("src").rglob("*.c") if path.name != "main.c"]
sources.sort(reverse=True)  # the tiers, which take longest, come first
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


class ParallelBuild(build_ext):
    """Compiles the sources of an extension on all cores; setuptools does one after the other."""

    def build_extension(self, ext):
        one_by_one = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: one_by_one([source], **options), sources)
                return [path for paths in objects for path in paths]

        if self.compiler.compiler_type == "msvc":
            self.compiler.initialize()  # before the threads, which would each do it
        self.compiler.compile = compile_all
        super().build_extension(ext)


setup(
    ext_modules=cythonize(
        extensions, include_path=["pyx"], build_dir="build", compiler_directives=directives
    ),
    cmdclass={"build_ext": ParallelBuild},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
