"""Every damaged file of the reference data is refused, and the error names the fault."""

import re
import tracemalloc
from pathlib import Path

import pytest

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.families import tensor_shapes
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text.tokenizer import Tokenizer

# File -> what the text of the error must contain (a regular expression).
FAULTS = {
    "alignment_0": "general.alignment 0",
    "alignment_3": "general.alignment 3",
    "bad_type_id": r"blk\.0\..*\b999\b",
    "bad_value_type": "block_count.*value type 77",
    "big_endian": "big-endian",
    "bool_value_7": "add_bos_token.*bool.* 7",
    "bos_out_of_range": "bos_token_id.*100000",
    "dims_negative": rf"attn_q.*{2**64 - 128}",
    "dims_overflow": rf"attn_q.*{2**33}, {2**33}",
    "dims_zero": r"attn_q.*\[0, 128\]",
    "duplicate_key": r"vocab_size' appears twice",
    "duplicate_tensor": r"attn_sub_norm\.weight' appears twice",
    "empty": "empty",
    "huge_array_count": rf"tokens.*{2**60}",
    "huge_block_count": rf"block_count is {2**31}",
    "huge_kv_count": rf"metadata keys is {2**40}",
    "huge_string_length": rf"key 0: {2**62} bytes",
    "huge_tensor_count": rf"tensors is {2**63}",
    "kv_heads_not_divisor": "head_count 2 .*head_count_kv 3",
    "magic_only": "ends inside the version",
    "merge_unknown_token": "merge",
    "missing_arch": "general.architecture is missing",
    "missing_block_count": "block_count is missing",
    "missing_tensor": r"blk\.0\.ffn_sub_norm\.weight.*missing",
    "n_dims_0": "attn_q.* 0 dimensions",
    "n_dims_9": "attn_q.* 9 dimensions",
    "nan_scale": "attn_q.*nan",
    "nested_array_type": "merges.*nested",
    "non_utf8_key": "key 1 .*UTF-8.*0xff",
    "non_utf8_token": "element 0 .*tokens.*UTF-8.*0xff",
    "offset_misaligned": "ffn_down.*39620.*multiple of the alignment 32",
    "offset_overflow": rf"ffn_down.*{2**64 - 32}",
    "offset_past_eof": "ffn_down.*8589934592.*end at 46848",
    "overlap": "attn_q",
    "removed_type_id": r"blk\.0\..*\b4\b",
    "token_type_short": "token_type",
    "truncated_data": "ffn_down.*3128",
    "truncated_header": "ends inside",
    "truncated_kv": "ends inside",
    "truncated_tensor_info": "ends inside the dimensions of tensor 'blk.0.ffn_down.weight'",
    "version_1": "version 1",
    "version_99": "version 99",
    "vocab_mismatch": r"token_embd.*\b56\b.*64|token_embd.*64.*\b56\b",
    "wrong_magic": "GGML",
    "wrong_shape_norm": r"attn_norm.*\b64\b",
    "wrong_type_block_count": "block_count is '1'.*integer",
    "wrong_type_eps": "epsilon is 1.*floating-point",
    "zero_heads": "head_count is 0",
}
# No writer makes code 3. Readers must survive it; looking for it would mean reading all weights.
ACCEPTED = {"base", "i2s_code_3"}


def load(path: Path) -> None:
    """Read the whole of a model: every tensor, and its tokenizer."""
    with open_checkpoint(path) as checkpoint:
        for name, shape in tensor_shapes(checkpoint.config).items():
            if len(shape) == 2:
                checkpoint.matrix(name)
            else:
                checkpoint.vector(name)
    Tokenizer.from_gguf(GGUFFile(path).metadata, name=str(path))


def test_all_malformed_files_are_known(golden):
    names = {path.stem for path in (golden / "malformed").glob("*.gguf")}
    assert names == FAULTS.keys() | ACCEPTED


@pytest.mark.parametrize("name", FAULTS)
def test_malformed_file_is_refused(golden, name):
    path = golden / "malformed" / f"{name}.gguf"
    tracemalloc.start()
    with pytest.raises(FormatError) as caught:
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(caught.value)
    assert str(path) in text
    # The path is cut out, since it names the fault too.
    assert re.search(FAULTS[name], text.replace(str(path), ""), re.IGNORECASE | re.DOTALL), text
    assert peak < 4 * 2**20


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_harmless_file_loads(golden, name):
    load(golden / "malformed" / f"{name}.gguf")
