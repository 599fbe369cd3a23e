"""Write tests/data from ../shared/golden, as README.md says: ``python tests/data/make.py``."""

import hashlib
import io
import json
import lzma
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from golden_data import SHARED, flipped  # noqa: E402

from bitnet_lut.checkpoint import open_checkpoint  # noqa: E402
from bitnet_lut.families import ModelConfig  # noqa: E402
from bitnet_lut.formats.gguf import GGUFFile  # noqa: E402
from bitnet_lut.formats.safetensors import SafetensorsFile  # noqa: E402

LEFT_OUT = ("README.md", "*/hf-master-bf16/*", "embedding-gemma3/*")
CASES_LEFT_OUT = {
    "codecs_ternary": ("m256_k384", "m320_k448", "m640_k2560"),
    "matmul": ("k2560", "k4096_ones", "k6912", "k14336", "k14336_mones"),
    "codecs_ggml": (),
}
LOGITS_LEFT_OUT = {
    "bitnet-b1.58/reference.npz": "logits_transformers_master",
    "bitnet-1bitllm/reference.npz": "logits_bitnetcpp_kvf16",
    "qwen2-plain/reference-q8_0.npz": "logits_llamacpp",
}
ROWS_OF_130 = slice(2, None, 3)  # of the rows of the longest sequences every third
HF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def kept(path: Path) -> bool:
    """Whether *path*, inside the reference data, is small enough to come along."""
    return path.is_file() and not any(path.relative_to(SHARED).match(p) for p in LEFT_OUT)


def gguf_name(name: str) -> str:
    """The name in GGUF of a tensor of a Hugging Face folder."""
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        return "token_embd.weight" if "embed" in name else "output.weight"
    _, _, layer, *middle, _ = name.split(".")
    return f"blk.{layer}.{HF_NAMES['.'.join(middle)]}.weight"


def derived_tensors(folder: Path, name: str, source: GGUFFile) -> list[dict[str, Any]]:
    """How the tensors of *name*, in *folder*, follow from those of *source*."""
    if name.endswith(".gguf"):
        codec = name.removeprefix("model-").removesuffix(".gguf").removesuffix("-id39")
        facts = json.loads((folder / "reference.json").read_text())
        tiles = {(m, k): rest for m, k, *rest in facts.get("tl2_tiles_M_K_BM_BK_bm", [])}
        with GGUFFile(folder / name) as file:
            return [
                entry(info.name, info.offset, codec, source, tile=tiles.get(info.shape))
                for info in file.tensors.values()
                if source.tensors[info.name].type_id == 36
            ]
    with open_checkpoint(folder / name.split("/")[0]) as checkpoint:
        config = checkpoint.config
    return [
        entry(
            gguf_name(hf_name),
            info.offset,
            "hf" if info.dtype == "U8" else "bf16",
            source,
            heads=heads(hf_name, config),
        )
        for hf_name, info in SafetensorsFile(folder / name).tensors.items()
        if info.dtype == "U8" or (info.dtype == "BF16" and len(info.shape) == 2)
    ]


def heads(name: str, config: ModelConfig) -> int:
    """The heads whose rows GGUF has in another order; 0 where they stay."""
    if config.rope_kind != "norm":
        return 0
    return config.head_count * ("q_proj" in name) or config.head_count_kv * ("k_proj" in name)


def entry(name: str, offset: int, codec: str, source: GGUFFile, **more: Any) -> dict[str, Any]:
    """A tensor of the manifest."""
    info = source.tensors[name]
    more = {key: value for key, value in more.items() if value is not None}
    return {
        "codec": codec,
        "shape": info.shape,
        "offset": offset,
        "source_offset": info.offset,
        **more,
    }


def reduced(path: Path) -> bytes:
    """An .npz file without the cases that are left out, stored plainly: xz compresses better."""
    with np.load(path) as arrays:
        logits = LOGITS_LEFT_OUT.get(str(path.relative_to(SHARED)), "")
        left_out = (logits, *CASES_LEFT_OUT.get(path.stem, ()))
        wanted = {key: arrays[key] for key in arrays.files if key.split("__")[0] not in left_out}
    for key, array in wanted.items():
        if key.endswith("__130") and key != "ids__130":
            wanted[key] = array[ROWS_OF_130]
    stored = io.BytesIO()
    np.savez(stored, **wanted)
    return stored.getvalue()


def content(path: Path) -> bytes:
    """What the archive holds for *path*, before predictions."""
    if path.suffix == ".npz":
        return reduced(path)
    if path.suffix == ".json" and path.stem in CASES_LEFT_OUT:
        cases = json.loads(path.read_text())
        left_out = CASES_LEFT_OUT[path.stem]
        return json.dumps({k: v for k, v in cases.items() if k not in left_out}).encode()
    return path.read_bytes()


def some_masters() -> bytes:
    """A safetensors file with a tenth of the master weights."""
    masters = SafetensorsFile(SHARED / "bitnet-b1.58/hf-master-bf16/model.safetensors")
    header: dict[str, Any] = {}
    data = b""
    for name, info in masters.tensors.items():
        if name.endswith("k_proj.weight"):
            places = [len(data), len(data) + info.nbytes]
            header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": places}
            data += masters.raw(name).tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def group_of(name: str) -> str:
    """The archive of a file: that of its folder, or of its name without the suffix."""
    folder, _, inside = name.partition("/")
    return folder if inside else Path(name).stem


def write(archive: Path, files: dict[str, bytes]) -> None:
    """An archive without times and owners, so that the same files give the same bytes."""
    with (
        lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


DERIVED = {
    "bitnet-b1.58/hf-packed/model.safetensors": "bitnet-b1.58/model-i2_s.gguf",
    "llama-1.58/hf-packed/model.safetensors": "llama-1.58/model-i2_s.gguf",
    "llama-1.58/model-tl2-id39.gguf": "llama-1.58/model-i2_s.gguf",
    "llama-1.58/model-tq1_0.gguf": "llama-1.58/model-i2_s.gguf",
    "llama-1.58/model-tq2_0.gguf": "llama-1.58/model-i2_s.gguf",
}


def main() -> None:
    """Write every archive and the manifest."""
    paths = sorted(path for path in SHARED.rglob("*") if kept(path))
    files = {str(path.relative_to(SHARED)): content(path) for path in paths}
    files["bitnet-b1.58/hf-some-masters/model.safetensors"] = some_masters()
    manifest: dict[str, Any] = {"derived": {}, "sha256": {}}
    for name, data in files.items():
        manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    for name, source in DERIVED.items():
        family, _, inside = name.partition("/")
        with GGUFFile(SHARED / source) as opened:
            tensors = derived_tensors(SHARED / family, inside, opened)
        manifest["derived"][name] = {"source": source, "tensors": tensors}
        files[name] = flipped(files[name], files[source], tensors)
    for group in sorted(set(map(group_of, files))):
        chosen = {name: data for name, data in files.items() if group_of(name) == group}
        write(HERE / f"{group}.tar.xz", chosen)
    (HERE / "manifest.json").write_text(json.dumps(manifest) + "\n")


if __name__ == "__main__":
    main()
