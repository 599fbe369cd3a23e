"""Vocabularies from Hugging Face folders to GGUF metadata and back.

GGUF names one of a few pre-tokenizers, while tokenizer.json spells its rules out. GGUF has neither
normalization nor the finer rules of added tokens. Texts that get other ids are reported.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as quote
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, processors

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.safetensors import read_json
from bitnet_lut.text import vocabulary, vocabulary_hf
from bitnet_lut.text.chat import folder_sources, gguf_sources
from bitnet_lut.text.guard import guarded
from bitnet_lut.text.vocabulary import (
    BYTE,
    CONTROL,
    GPT2,
    NORMAL,
    PRE_TOKENIZERS,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)

__all__ = [
    "NAMED_PRE_TOKENIZERS",
    "copy_folder",
    "from_folder",
    "replace_chat_template",
    "to_folder",
    "write_json",
]

# Values of tokenizer.ggml.pre that other programs know too.
NAMED_PRE_TOKENIZERS = tuple(name for name in PRE_TOKENIZERS if name != "falcon3-bitnet.cpp")

_TEMPLATES = "additional_chat_templates"  # a folder of named ones
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)

_AT_ONCE = 4096  # texts encoded at a time, a kilobyte each
_SAMPLES = (
    "The capital of France is Paris. It's 12345 km away!\n\n\n  I'LL (maybe) GO\tthere, at 1,000%.",
    "def f(x):\r\n    return x**2  # naïve, überfällig\n\t\tif x != '\\n': print(f\"{x:>08}\")   ",
    "Москва 2024年 東京 مرحبا हिन्दी ไทย 한국어 🙂🙃 é ½ Ⅷ _snake_case_ CamelCase...\u00a0x",
)


def from_folder(
    folder: Path, vocab_size: int, pre: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The ``tokenizer.*`` metadata for a folder's tokenizer.json, and warnings of what differs.

    vocab_size: rows of the embedding; ids without a token become "[PADi]".
    pre: the ``tokenizer.ggml.pre`` to write; None for the one whose regexes the folder has.
    Raises FormatError if the folder's vocabulary cannot be used or has no counterpart in GGUF.
    """
    file = folder / "tokenizer.json"
    source = vocabulary_hf.from_folder(folder)
    state = read_json(file)
    if len(source.pieces) > vocab_size:
        raise FormatError(f"{file}: {len(source.pieces)} tokens, but the model has {vocab_size}")
    if state["model"].get("type") != "BPE":
        raise FormatError(f"{file}: a model of type {quote(state['model'].get('type'))}, not BPE")
    if "ByteLevel" in _steps(state["decoder"], "decoders"):
        warnings = _check_normalizer(state, file)
        pre = pre or _recognize(state, file)
        fields = _byte_level_fields(source, state, pre, vocab_size, file)
    elif pre is not None:
        raise ValueError(f"{file}: a SentencePiece vocabulary has no pre-tokenizer {pre!r}")
    else:
        warnings = []
        fields = _sentencepiece_fields(source, state, vocab_size, file)
    fields |= _special_ids(source, folder)
    metadata = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    metadata |= _template_metadata(folder_sources(folder))
    with guarded(f"{file}: sample texts cannot be encoded"):
        warnings += _differences(source, vocabulary.from_gguf(metadata, str(file), "auto"))
    return metadata, warnings


def to_folder(
    metadata: Mapping[str, Any], folder: Path, name: str, *, pre: str = "auto", context: int
) -> dict[str, Any]:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json.

    name: the GGUF file, for errors. pre: see ``Tokenizer.from_gguf``. context: most tokens.
    Returns what config.json says of the vocabulary. Raises FormatError if it cannot be used.
    """
    texts = metadata["tokenizer.ggml.tokens"]
    with guarded(name):
        source = vocabulary.from_gguf(metadata, name, pre)
        _complete(source, byte_level=metadata["tokenizer.ggml.model"] == "gpt2", texts=texts)
        state = source.encoder.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(state, encoding="utf-8")
    named = {"bos": source.bos_id, "eos": source.eos_id}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{token}_token": texts[i] for token, i in named.items() if i is not None},
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    padding = metadata.get("tokenizer.ggml.padding_token_id")
    if isinstance(padding, int) and padding < len(texts):
        settings["pad_token"] = texts[padding]
    if templates := gguf_sources(metadata, name):
        settings["chat_template"] = _template_setting(templates)
    write_json(folder / "tokenizer_config.json", settings)
    ends = sorted(source.eos_ids, key=lambda i: (i != source.eos_id, i))
    generation = {"bos_token_id": source.bos_id, "eos_token_id": ends or None}
    write_json(folder / "generation_config.json", generation)
    return {f"{token}_token_id": i for token, i in named.items()}


def copy_folder(source: Path, folder: Path) -> None:
    """Copy the files of a vocabulary that exist from one folder to another."""
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    named = sorted((source / _TEMPLATES).glob("*.jinja"))
    for file in named:
        (folder / _TEMPLATES).mkdir(exist_ok=True)
        shutil.copyfile(file, folder / _TEMPLATES / file.name)


def replace_chat_template(folder: Path, template: str) -> None:
    """Replace the default chat template of a folder; others that have a name stay."""
    templates = {**folder_sources(folder), "default": template}
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    write_json(file, {**settings, "chat_template": _template_setting(templates)})


def _template_metadata(templates: Mapping[str, str]) -> dict[str, Any]:
    """Chat templates, by name, as llama.cpp's converter writes them into GGUF files."""
    found: dict[str, Any] = {}
    named = [name for name in templates if name != "default"]
    if named:
        found["tokenizer.chat_templates"] = named
        found |= {f"tokenizer.chat_template.{name}": templates[name] for name in named}
    if "default" in templates:
        found["tokenizer.chat_template"] = templates["default"]
    return found


def _template_setting(templates: Mapping[str, str]) -> str | list[dict[str, str]]:
    """Chat templates, by name, as tokenizer_config.json holds them: names lead to no files."""
    if templates.keys() == {"default"}:
        return templates["default"]
    return [{"name": name, "template": source} for name, source in templates.items()]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _complete(source: Vocabulary, *, byte_level: bool, texts: Sequence[str]) -> None:
    """Add what tokenizer.json also needs to the encoder: the decoder, and BOS and EOS."""
    encoder = source.encoder
    if byte_level:
        encoder.decoder = decoders.ByteLevel()
    else:
        strip = [decoders.Strip(" ", 1, 0)] if source.adds_space else []
        replace = decoders.Replace(SPACE, " ")
        encoder.decoder = decoders.Sequence(
            [replace, decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
    before = [source.bos_id] if source.add_bos and source.bos_id is not None else []
    after = [source.eos_id] if source.add_eos and source.eos_id is not None else []
    if before or after:
        single = [*(texts[i] for i in before), "$A", *(texts[i] for i in after)]
        second = [part.replace("$A", "$B") for part in single]
        special = [(texts[i], i) for i in {*before, *after}]
        encoder.post_processor = processors.TemplateProcessing(
            single=single, pair=[*single, *second], special_tokens=special
        )


def _byte_level_fields(
    source: Vocabulary, state: Mapping[str, Any], pre: str, vocab_size: int, file: Path
) -> dict[str, Any]:
    tokens, types = _tokens(source.encoder, vocab_size)
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": np.array(types, np.int32),
        "merges": [" ".join(pair) for pair in _merges(state["model"], file)],
    }


def _sentencepiece_fields(
    source: Vocabulary, state: Mapping[str, Any], vocab_size: int, file: Path
) -> dict[str, Any]:
    model = state["model"]
    tokens, types = _tokens(source.encoder, vocab_size)
    unknown = model.get("unk_token") or "<unk>"
    of_bytes = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    kinds = dict.fromkeys(of_bytes, BYTE) | {unknown: UNKNOWN}
    types = [kinds.get(text, kind) for text, kind in zip(tokens, types, strict=True)]
    fields = {
        "model": "llama",
        "tokens": tokens,
        "scores": _scores(tokens, types, _merges(model, file)),
        "token_type": np.array(types, np.int32),
        "add_space_prefix": source.adds_space,
    }
    return fields | ({"unknown_token_id": tokens.index(unknown)} if unknown in tokens else {})


def _tokens(encoder: Encoder, count: int) -> tuple[list[str], list[int]]:
    """Text and type of every id."""
    added = encoder.get_added_tokens_decoder()
    tokens, types = [], []
    for i in range(count):
        text = encoder.id_to_token(i)
        kind = NORMAL
        if text is None:
            text, kind = f"[PAD{i}]", UNUSED
        elif i in added:
            kind = CONTROL if added[i].special else USER_DEFINED
        tokens.append(text)
        types.append(kind)
    return tokens, types


def _merges(model: Mapping[str, Any], file: Path) -> list[tuple[str, str]]:
    """The pairs of tokens to merge, which older files write as one string."""
    pairs = []
    for i, entry in enumerate(model.get("merges", [])):
        pair = entry.split(" ", 1) if isinstance(entry, str) else entry
        if len(pair) != 2 or " " in pair[0]:
            raise FormatError(f"{file}: merge {i} is {quote(entry)}, which GGUF cannot hold")
        pairs.append((pair[0], pair[1]))
    return pairs


def _steps(part: Any, key: str) -> dict[str, Any]:
    """The steps of a normalizer, pre-tokenizer or decoder by type, in order."""
    steps = part.get(key, [part]) if isinstance(part, dict) else []
    return {step["type"]: step for step in steps}


def _check_normalizer(state: Mapping[str, Any], file: Path) -> list[str]:
    """Warnings of what the normalizer of a byte-level vocabulary does and GGUF leaves out."""
    steps = _steps(state.get("normalizer"), "normalizers")
    if steps.keys() <= {"NFC"}:
        return ["NFC normalization of texts is left out, as in llama.cpp"] if steps else []
    raise FormatError(f"{file}: the normalizer {quote(state['normalizer'])} is not supported")


def _recognize(state: Mapping[str, Any], file: Path) -> str:
    """The key of PRE_TOKENIZERS with the regexes of a tokenizer.json."""
    passes = tuple(_passes(state.get("pre_tokenizer")))
    ignore_merges = state["model"].get("ignore_merges", False)
    names = [name for name in NAMED_PRE_TOKENIZERS if PRE_TOKENIZERS[name].passes == passes]
    exact = [name for name in names if PRE_TOKENIZERS[name].ignore_merges == ignore_merges]
    if not names:
        raise FormatError(
            f"{file}: its pre-tokenizer {quote(passes)} is not one of "
            f"{', '.join(NAMED_PRE_TOKENIZERS)}; name the one to write by pre_tokenizer"
        )
    return (exact or names)[0]


def _passes(pre_tokenizer: Any) -> Iterator[str]:
    """The regexes that cut a text; a step that is not a regex is named by its type."""
    for step in _pre_tokenizers(pre_tokenizer):
        regex = step.get("pattern", {}).get("Regex")
        if step["type"] == "Split" and regex and step["behavior"] == "Isolated":
            yield regex if not step.get("invert") else f"not {regex}"
        elif step["type"] == "ByteLevel" and not step["add_prefix_space"]:
            yield from [GPT2] if step["use_regex"] else []
        else:
            yield step["type"]


def _pre_tokenizers(part: Any) -> Sequence[Any]:
    if part is None:
        return []
    steps: Sequence[Any] = part.get("pretokenizers", [part])
    return steps


def _scores(
    tokens: Sequence[str], types: Sequence[int], merges: Sequence[tuple[str, str]]
) -> NDArray[np.float32]:
    """Scores that make SentencePiece merge in the order of *merges*: 0, -1, -2 and so on."""
    order = dict.fromkeys(left + right for left, right in merges)
    ranks = {text: -rank for rank, text in enumerate(order)}
    last = -len(ranks)
    scores = [
        ranks.get(text, last if kind == NORMAL and len(text) > 1 else 0)
        for text, kind in zip(tokens, types, strict=True)
    ]
    return np.array(scores, np.float32)


def _special_ids(source: Vocabulary, folder: Path) -> dict[str, Any]:
    """Ids of BOS, EOS, another end token and padding, and whether BOS and EOS are added."""
    ids = {"bos_token_id": source.bos_id, "eos_token_id": source.eos_id}
    found_by_text = vocabulary.end_ids(source.encoder.token_to_id, [source.eos_id])
    ids["eot_token_id"] = min(source.eos_ids - found_by_text, default=None)
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    padding = settings.get("pad_token")
    padding = padding.get("content") if isinstance(padding, dict) else padding
    ids["padding_token_id"] = source.encoder.token_to_id(padding) if padding else None
    adds = {"add_bos_token": source.add_bos, "add_eos_token": source.add_eos}
    return {key: i for key, i in ids.items() if i is not None} | adds


def _differences(source: Vocabulary, target: Vocabulary) -> list[str]:
    """A warning if sample texts, or the texts of tokens, get other ids."""
    texts = list(_SAMPLES)
    for piece in source.pieces:
        try:
            texts.append(piece.decode().lstrip(" " if source.adds_space else ""))
        except UnicodeDecodeError:
            continue  # a part of a character
    differing = []
    for start in range(0, len(texts), _AT_ONCE):
        some = texts[start : start + _AT_ONCE]
        pair = [
            e.encode_batch(some, add_special_tokens=False) for e in (source.encoder, target.encoder)
        ]
        differing += [text for text, a, b in zip(some, *pair, strict=True) if a.ids != b.ids]
    if not differing:
        return []
    return [
        f"{len(differing)} of {len(texts)} sample texts get other ids than from tokenizer.json; "
        f"the first is {quote(differing[0])}"
    ]
