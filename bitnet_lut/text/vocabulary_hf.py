"""Vocabularies from Hugging Face folders: tokenizer.json, and the files that name BOS and EOS."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as quote
from typing import Any

from tokenizers import Tokenizer as Encoder

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import read_text
from bitnet_lut.formats.safetensors import parse_json, read_json
from bitnet_lut.text.guard import MOST_IDS, guarded, refuse_hostile
from bitnet_lut.text.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    Vocabulary,
    byte_level_piece,
    end_ids,
    sentencepiece_piece,
)

__all__ = ["from_folder"]

# What may name BOS and EOS, the first to be believed first.
_CONFIGS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "config.json",
)


def from_folder(path: str | os.PathLike[str]) -> Vocabulary:
    """The vocabulary of a folder; `Tokenizer.from_folder` says from which files."""
    folder = Path(path)
    file = folder / "tokenizer.json"
    with guarded(str(file)):
        return _from_file(folder, file)


def _from_file(folder: Path, file: Path) -> Vocabulary:
    encoder = _read_encoder(file)
    piece, adds_space = _decoder(encoder, file)
    pieces = _pieces(encoder, piece, file)
    configs = {name: _read_config(folder / name) for name in _CONFIGS}
    bos_ids = _named(folder, configs, "bos", encoder, len(pieces))
    eos_ids = _named(folder, configs, "eos", encoder, len(pieces))
    bos_id = bos_ids[0] if bos_ids else None
    eos_id = eos_ids[0] if eos_ids else None
    add_bos, add_eos = _adds(encoder, configs["tokenizer_config.json"], bos_id, eos_id, file)
    ends = end_ids(encoder.token_to_id, eos_ids)
    added = encoder.get_added_tokens_decoder()
    return Vocabulary(
        encoder=encoder,
        pieces=pieces,
        special=ends.union(i for i, token in added.items() if token.special),
        bos_id=bos_id,
        eos_id=eos_id,
        eos_ids=ends,
        add_bos=add_bos,
        add_eos=add_eos,
        adds_space=adds_space,
        pre="",
    )


def _read_encoder(file: Path) -> Encoder:
    if not file.exists():
        hint = ""
        if (file.parent / "tokenizer.model").exists():
            hint = "; transformers writes one from tokenizer.model with save_pretrained"
        raise FormatError(f"{file} is missing{hint}")
    text = read_text(file)
    refuse_hostile(parse_json(text, str(file)), file)
    encoder = Encoder.from_str(text)
    # Files are published with the settings of their training, which would cut prompts short.
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _decoder(encoder: Encoder, file: Path) -> tuple[Callable[[str, int], bytes], bool]:
    """What a token's text stands for, and whether decoding takes a space away at the start."""
    state = json.loads(encoder.decoder.__getstate__()) if encoder.decoder else {}
    steps = {step.get("type"): step for step in state.get("decoders", [state])}
    replace = steps.get("Replace", {})
    if steps.keys() == {"ByteLevel"}:
        return byte_level_piece, False
    if steps.keys() == {"Metaspace"} and steps["Metaspace"]["replacement"] == SPACE:
        return sentencepiece_piece, steps["Metaspace"]["prepend_scheme"] != "never"
    if (
        steps.keys() <= {"Replace", "ByteFallback", "Fuse", "Strip"}
        and replace.get("pattern") == {"String": SPACE}
        and replace.get("content") == " "
    ):
        return sentencepiece_piece, "Strip" in steps
    raise FormatError(
        f"{file}: the decoder {quote(state)} is not supported: it must be that of byte-level BPE "
        "or of SentencePiece"
    )


def _pieces(encoder: Encoder, piece: Callable[[str, int], bytes], file: Path) -> list[bytes]:
    """By id; empty where there is no such token."""
    vocab = encoder.get_vocab(with_added_tokens=True)
    most = max(vocab.values(), default=-1)
    if not 0 <= most < MOST_IDS:
        raise FormatError(f"{file}: the largest token id is {most}")
    added = encoder.get_added_tokens_decoder()
    bytes_fall_back = getattr(encoder.model, "byte_fallback", False)
    pieces = [b""] * (most + 1)
    for text, i in vocab.items():
        kind = CONTROL if i in added else NORMAL
        if bytes_fall_back and kind == NORMAL and len(text) == 6 and text.startswith("<0x"):
            kind = BYTE
        pieces[i] = piece(text, kind)
    return pieces


def _read_config(file: Path) -> dict[str, Any]:
    """The object in *file*; an empty one if there is no file."""
    try:
        return read_json(file)
    except FileNotFoundError:
        return {}


def _named(
    folder: Path, configs: dict[str, dict[str, Any]], token: str, encoder: Encoder, count: int
) -> list[int]:
    """All ids that the files give *token*, "bos" or "eos", in their order."""
    ids: list[int] = []
    for name, config in configs.items():
        text = config.get(f"{token}_token")
        if isinstance(text, dict):
            text = text.get("content")
        if isinstance(text, str):
            i = encoder.token_to_id(text)
            if i is None:
                raise FormatError(f"{folder / name}: {token}_token {quote(text)} is not a token")
            ids.append(i)
        values = config.get(f"{token}_token_id")
        for i in values if isinstance(values, list) else [values]:
            if i is None:
                continue
            if type(i) is not int or not 0 <= i < count:
                raise FormatError(
                    f"{folder / name}: {token}_token_id is {quote(i)}, there are {count} tokens"
                )
            ids.append(i)
    return ids


def _adds(
    encoder: Encoder, config: dict[str, Any], bos_id: int | None, eos_id: int | None, file: Path
) -> tuple[bool, bool]:
    """Whether BOS and EOS go around a text: as the post-processor does, unless *config* says."""
    around = encoder.encode("").ids
    add_bos = bos_id is not None and around[:1] == [bos_id]
    add_eos = eos_id is not None and around[add_bos:][-1:] == [eos_id]
    if len(around) != add_bos + add_eos:
        raise FormatError(
            f"{file}: the post-processor puts {quote(around)} around a text; supported are BOS, "
            f"here {bos_id}, and EOS, here {eos_id}"
        )
    if bos_id is not None:
        add_bos = config.get("add_bos_token", add_bos) is True
    if eos_id is not None:
        add_eos = config.get("add_eos_token", add_eos) is True
    return add_bos, add_eos
