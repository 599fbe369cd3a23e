"""No instruction above the x86-64 baseline outside the object files of the tiers that need it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitnet_lut
from bitnet_lut import _native

FUNCTION = re.compile(r"([0-9a-f]+) <(.+)>:")
INSTRUCTION = re.compile(
    r" +[0-9a-f]+:\t(?:(?:lock|rep\w*|bnd|notrack|data16|[c-g]s|\{\w+\}) +)*(\S+)"
)
# Whatever x86-64 has beyond SSE2, by mnemonic. tzcnt is left out: it is bsf to an older CPU, and
# compilers emit it as such.
BEYOND_BASELINE = re.compile(
    r"""v(?!err$|erw$)\w+ | k(add|and|mov|not|or|shift|test|unpck|xn?or)\w+  # AVX to AVX-512
    | addsubp[sd] | h(add|sub)p[sd] | lddqu | mov(d|sl|sh)dup                # SSE3
    | p(shufb|h(add|sub)\w+|maddubsw|mulhrsw|sign[bwd]|abs[bwd]|alignr)      # SSSE3
    | blendv?p[sd] | pblend(vb|w) | dpp[sd] | (extract|insert)ps | movntdqa | mpsadbw | packusdw
    | pcmpeqq | p(extr|insr)[bdq] | phminposuw | p(max|min)(s[bd]|u[dw]) | pmov[sz]x\w+ | pmuldq
    | pmulld | ptest | round[ps][sd]                                         # SSE4.1
    | pcmpgtq | pcmp[ei]str[im] | crc32\w? | popcnt\w? | lzcnt\w? | movbe\w? # SSE4.2 and near
    | (andn|bextr|bls(i|r|msk)|bzhi|mulx|pdep|pext|rorx|(sar|shl|shr)x|ad[co]x)[lq]?      # BMI, ADX
    | (ld|st)tilecfg | tile\w+ | tdp\w+                                      # AMX
    | gf2p8\w+ | aes\w+ | pclmul\w+ | sha(1|256)\w+""",
    re.VERBOSE,
)


def output(*command: str) -> str:
    """What a tool of binutils prints."""
    if shutil.which(command[0]) is None:
        pytest.skip("NO DISASSEMBLER: install binutils, else nothing shows that the wheel is safe")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def sources(path: str) -> tuple[list[str], dict[int, str]]:
    """The source files of a library, as its symbols name them, and that of each local function.

    A source file stands before its local symbols; those of functions that several files know come
    last, behind a file without a name.
    """
    files, source_of, current = [], {}, ""
    for line in output("readelf", "-sW", path).splitlines():
        fields = line.split()
        if len(fields) >= 7 and fields[3] == "FILE":
            current = fields[7] if len(fields) > 7 else ""
            files.append(current)
        elif len(fields) >= 8 and fields[3] == "FUNC":
            source_of[int(fields[1], 16)] = current
    return files, source_of


def instructions(path: str) -> dict[tuple[str, str], set[str]]:
    """Mnemonics of each function of a library, by its source file and name."""
    _, source_of = sources(path)
    found: dict[tuple[str, str], set[str]] = {}
    mnemonics: set[str] = set()
    for line in output("objdump", "-d", "--no-show-raw-insn", path).splitlines():
        if function := FUNCTION.fullmatch(line):
            source = source_of.get(int(function[1], 16), "")
            mnemonics = found.setdefault((source, function[2]), set())
        elif instruction := INSTRUCTION.match(line):
            mnemonics.add(instruction[1])
    return found


@pytest.fixture(scope="module")
def module():
    """Path of the module, if this machine can tell what is in it."""
    if "avx2" not in _native.tier_names() or sys.platform != "linux":
        pytest.skip("NOT x86-64 LINUX: this test reads no other disassembly")
    if "tables.c" not in sources(_native.__file__)[0]:
        pytest.skip("STRIPPED: without its symbols no function of the module has a name")
    return _native.__file__


def test_only_tiers_exceed_the_baseline(module):
    found = instructions(module)
    tiers = {f"{isa}.c": isa for isa in _native.tier_names() if isa != "scalar"}
    # The test sees what it is meant to see: the start of the module, and what the tiers are for.
    assert {"PyInit__native", "__pyx_pymod_exec__native"} <= {name for _, name in found}
    for source, isa in tiers.items():
        of_i2_s = [found[key] for key in found if key[0] == source and key[1].startswith("i2_s_")]
        assert _native.dot_instruction(isa) in set().union(*of_i2_s)
        assert _native.dot_instruction(isa) in found[source, "roof_multiply"]
    beyond = {
        (source, function): sorted(filter(BEYOND_BASELINE.fullmatch, mnemonics))
        for (source, function), mnemonics in found.items()
        if source not in tiers
    }
    assert {function: found for function, found in beyond.items() if found} == {}


def test_each_tier_is_compiled_once(module):
    compiled = [
        source
        for path in Path(bitnet_lut.__file__).parent.rglob("*.so")
        for source in sources(str(path))[0]
    ]
    for isa in _native.tier_names():
        assert compiled.count(f"{isa}.c") == 1


def test_only_the_start_of_the_module_is_exported(module):
    lines = output("nm", "-D", "--defined-only", module).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__native"]


@pytest.mark.parametrize(
    "mnemonic", ["vzeroupper", "kmovw", "pshufb", "popcnt", "shlxq", "roundss", "tdpbsud"]
)
def test_pattern_finds(mnemonic):
    assert BEYOND_BASELINE.fullmatch(mnemonic)


@pytest.mark.parametrize("mnemonic", ["mov", "andnps", "pextrw", "pmaxsw", "tzcnt", "pause"])
def test_pattern_spares(mnemonic):
    assert not BEYOND_BASELINE.fullmatch(mnemonic)
