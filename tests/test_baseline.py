"""No instruction above the x86-64 baseline outside the functions of the tier that needs it."""

import re
import shutil
import subprocess
import sys

import pytest

from bitnet_lut import _native

# Compilers split functions: bl_dense_gemm_avx2.cold and the like.
TIER_FUNCTION = re.compile(r"\w+_(avx2|avxvnni|avx512)(\.\w+)*")
FUNCTION = re.compile(r"[0-9a-f]+ <(.+)>:")
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
    | gf2p8\w+ | aes\w+ | pclmul\w+ | sha(1|256)\w+""",
    re.VERBOSE,
)


def instructions(path: str) -> dict[str, set[str]]:
    """Mnemonics of each function of a library, by its name."""
    if shutil.which("objdump") is None:
        pytest.skip("NO DISASSEMBLER: install binutils, else nothing shows that the wheel is safe")
    command = ["objdump", "-d", "--no-show-raw-insn", path]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    mnemonics: set[str] = set()
    for line in text.splitlines():
        if function := FUNCTION.fullmatch(line):
            mnemonics = found.setdefault(function[1], set())
        elif instruction := INSTRUCTION.match(line):
            mnemonics.add(instruction[1])
    return found


@pytest.mark.parametrize("module", [_native], ids=lambda module: module.__name__)
def test_only_tiers_exceed_the_baseline(module):
    if "avx2" not in _native.tier_names() or sys.platform != "linux":
        pytest.skip("NOT x86-64 LINUX: this test reads no other disassembly")
    found = instructions(module.__file__)
    if "bl_i2_s_gemm_scalar" not in found:
        pytest.skip("STRIPPED: without its symbols no function of the module has a name")
    # The test sees what it is meant to see: the start of the module, and what the tiers are for.
    name = module.__name__.rpartition(".")[2]
    assert {f"PyInit_{name}", f"__pyx_pymod_exec_{name}"} <= found.keys()
    assert "vpmaddubsw" in found["bl_i2_s_gemm_avx2"]
    assert "vpdpbusd" in found["bl_i2_s_gemm_avx512"]
    if "avxvnni" in _native.tier_names():
        assert "vpdpbusd" in found["bl_i2_s_gemm_avxvnni"]

    beyond = {
        function: sorted(filter(BEYOND_BASELINE.fullmatch, mnemonics))
        for function, mnemonics in found.items()
        if not TIER_FUNCTION.fullmatch(function)
    }
    assert {function: found for function, found in beyond.items() if found} == {}


@pytest.mark.parametrize(
    "mnemonic", ["vzeroupper", "kmovw", "pshufb", "popcnt", "shlxq", "roundss"]
)
def test_pattern_finds(mnemonic):
    assert BEYOND_BASELINE.fullmatch(mnemonic)


@pytest.mark.parametrize("mnemonic", ["mov", "andnps", "pextrw", "pmaxsw", "tzcnt", "pause"])
def test_pattern_spares(mnemonic):
    assert not BEYOND_BASELINE.fullmatch(mnemonic)
