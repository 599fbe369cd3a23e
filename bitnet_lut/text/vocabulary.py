"""Vocabularies from GGUF metadata, built on the tokenizers library.

Byte-level BPE ("gpt2"): tokens spell bytes in GPT-2's alphabet; the merges are listed, best first.
SentencePiece ("llama"): tokens spell text with U+2581 for a space; of all merges possible the one
into the token of the highest score goes first. Special tokens and the space before a text follow
llama.cpp in both.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from reprlib import repr as quote
from typing import Any, TypeVar

import numpy as np
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Encoder

from bitnet_lut.errors import FormatError

__all__ = [
    "BYTE",
    "CONTROL",
    "GPT2",
    "NORMAL",
    "PRE_TOKENIZERS",
    "SPACE",
    "UNKNOWN",
    "UNUSED",
    "USER_DEFINED",
    "PreTokenizer",
    "Vocabulary",
    "byte_level_piece",
    "end_ids",
    "from_gguf",
    "sentencepiece_piece",
]

# What a token is, in GGUF as in SentencePiece.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# These end a generation in any vocabulary that has them, as in llama.cpp.
_END_TEXTS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
)
SPACE = "\u2581"
_LONGEST_PIECE = 512  # characters of a SentencePiece token: bounds the search for merges
_BYTE_TEXT = re.compile("<0x([0-9A-F]{2})>")
_T = TypeVar("_T")


@dataclass(frozen=True)
class PreTokenizer:
    """How a text is cut into words; byte-level BPE then merges inside each.

    passes: regexes, each cutting what the one before left; matches and gaps both become pieces.
    ignore_merges: a word that is a token is taken whole, even where the merges lead elsewhere.
    add_bos: whether BOS opens a text when the file does not say.
    """

    passes: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_BPE = PreTokenizer((_LLAMA3,), ignore_merges=True, add_bos=True)
_FALCON = PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9]"))

# By the value of tokenizer.ggml.pre; only "falcon3-bitnet.cpp" is a name of ours. Of "falcon3"
# llama.cpp makes Llama 3's rule, bitnet.cpp the three passes of the first Falcon.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "llama-bpe": _LLAMA_BPE,
    "llama3": _LLAMA_BPE,
    "llama-v3": _LLAMA_BPE,
    "falcon3": _LLAMA_BPE,
    "falcon3-bitnet.cpp": _FALCON,
    "falcon_e": _FALCON,
    "qwen2": PreTokenizer((_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),)),
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of.

    encoder: text to ids, without BOS and EOS.
    pieces: the bytes that each id stands for.
    special: ids that no text of a user may spell: control and unknown tokens, and all ends.
    eos_ids: every id that ends a generation, eos_id among them.
    add_bos, add_eos: whether these go around a text by default.
    adds_space: whether the encoder puts a space before a text, for decoding to take away.
    pre: a key of PRE_TOKENIZERS, or empty where none is used.
    """

    encoder: Encoder
    pieces: Sequence[bytes]
    special: frozenset[int]
    bos_id: int | None
    eos_id: int | None
    eos_ids: frozenset[int]
    add_bos: bool
    add_eos: bool
    adds_space: bool
    pre: str


def from_gguf(metadata: Mapping[str, object], name: str, pre: str) -> Vocabulary:
    """The vocabulary of ``tokenizer.ggml.*``; `Tokenizer.from_gguf` says what *pre* may be."""
    fields = _Fields(metadata, name)
    tokens = fields.tokens()
    bos_id = fields.token_id("bos_token_id")
    eos_id = fields.token_id("eos_token_id")
    ids = {text: i for i, text in enumerate(tokens)}
    eos_ids = end_ids(ids.get, [eos_id, fields.token_id("eot_token_id")])
    # Bad conversions type the ends as normal, and then no text could hold them.
    types = [CONTROL if i in eos_ids and t == NORMAL else t for i, t in enumerate(fields.types())]

    model = fields.get("model", str)
    adds_space = False
    if model == "gpt2":
        pre = _choose_pre(fields, pre, None if bos_id is None else tokens[bos_id])
        add_bos = PRE_TOKENIZERS[pre].add_bos
        encoder = _byte_level_encoder(fields, ids, PRE_TOKENIZERS[pre])
        pieces = _byte_level_pieces(tokens, types)
    elif model == "llama":
        if pre != "auto":
            raise ValueError(f"pre_tokenizer is {pre!r}, but {name} has a SentencePiece vocabulary")
        pre = ""
        add_bos = True
        adds_space = fields.flag("add_space_prefix", True)
        unknown_id = fields.token_id("unknown_token_id")
        unknown = None if unknown_id is None else tokens[unknown_id]
        encoder = _sentencepiece_encoder(tokens, fields.scores(), types, unknown, adds_space, name)
        pieces = [sentencepiece_piece(text, kind) for text, kind in zip(tokens, types, strict=True)]
    else:
        raise FormatError(
            f"{name}: tokenizer.ggml.model is {quote(model)}; 'gpt2' and 'llama' are supported"
        )
    _add_special_tokens(encoder, tokens, types)
    return Vocabulary(
        encoder=encoder,
        pieces=pieces,
        special=eos_ids.union(i for i, t in enumerate(types) if t in (UNKNOWN, CONTROL)),
        bos_id=bos_id,
        eos_id=eos_id,
        eos_ids=eos_ids,
        add_bos=fields.adds("bos", bos_id, default=add_bos),
        add_eos=fields.adds("eos", eos_id, default=False),
        adds_space=adds_space,
        pre=pre,
    )


def end_ids(find: Callable[[str], int | None], named: Iterable[int | None]) -> frozenset[int]:
    """The ids that end a generation: those *named* and those that *find* knows by their text."""
    return frozenset(i for i in [*named, *map(find, _END_TEXTS)] if i is not None)


def _add_special_tokens(encoder: Encoder, tokens: Sequence[str], types: Sequence[int]) -> None:
    """Have *encoder* find these whole in a text, before anything else; their ids stay."""
    control, user_defined = [], []
    for text, kind in zip(tokens, types, strict=True):
        if kind in (UNKNOWN, CONTROL):
            control.append(AddedToken(text, normalized=False))
        elif kind == USER_DEFINED:
            user_defined.append(AddedToken(text, normalized=False))
    encoder.add_special_tokens(control)
    encoder.add_tokens(user_defined)


def _sentencepiece_encoder(
    tokens: Sequence[str],
    scores: Sequence[float],
    types: Sequence[int],
    unknown: str | None,
    adds_space: bool,
    name: str,
) -> Encoder:
    """SentencePiece BPE as a list of merges, in the order in which it would do them.

    unknown: the token for characters that have no token and cannot be spelled in byte tokens.
    """
    ids = {
        text: i
        for i, (text, t) in enumerate(zip(tokens, types, strict=True))
        if t in (NORMAL, USER_DEFINED, UNUSED)
    }
    merges = []
    for text, i in ids.items():
        if len(text) > _LONGEST_PIECE:
            raise FormatError(
                f"{name}: token {i} has {len(text)} characters, {_LONGEST_PIECE} are supported"
            )
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                merges.append((-scores[i], left, right))
    merges.sort()
    encoder = Encoder(
        models.BPE(
            {text: i for i, text in enumerate(tokens)},
            [(tokens[left], tokens[right]) for _, left, right in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=BYTE in types,
        )
    )
    space = normalizers.Replace(" ", SPACE)
    encoder.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE), space]) if adds_space else space
    )
    return encoder


def sentencepiece_piece(text: str, kind: int) -> bytes:
    """The bytes a SentencePiece token of type *kind* stands for."""
    spelt = _BYTE_TEXT.fullmatch(text) if kind == BYTE else None
    if spelt:
        return bytes([int(spelt[1], 16)])
    return (text.replace(SPACE, " ") if kind in (NORMAL, UNUSED) else text).encode()


def byte_level_piece(text: str, kind: int) -> bytes:
    """The bytes a byte-level token of type *kind* stands for."""
    if kind not in (UNKNOWN, CONTROL, USER_DEFINED):
        try:
            return text.translate(_BYTE_LEVEL).encode("latin-1")
        except UnicodeEncodeError:
            pass  # not all in the alphabet, so it is plain text
    return text.encode()


def _alphabet() -> dict[int, int]:
    """GPT-2's alphabet: a printable byte is its own character, the others follow from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = dict.fromkeys(others, 0xFFFF)  # no byte is written so; 0xFFFF is not Latin-1
    alphabet.update((byte, byte) for byte in printable)
    alphabet.update((256 + i, byte) for i, byte in enumerate(others))
    return alphabet


_BYTE_LEVEL = _alphabet()


def _byte_level_pieces(tokens: Sequence[str], types: Sequence[int]) -> list[bytes]:
    """`byte_level_piece` of every token, all at once except those that spell no bytes."""
    table = np.full(max(_BYTE_LEVEL) + 2, 0xFFFF, np.uint16)
    table[list(_BYTE_LEVEL)] = list(_BYTE_LEVEL.values())
    characters = np.frombuffer("".join(tokens).encode("utf-32-le"), "<u4")
    spelt = table[np.minimum(characters, len(table) - 1)]
    ends = np.cumsum([*map(len, tokens)])
    data = spelt.astype(np.uint8).tobytes()
    pieces = [data[start:end] for start, end in pairwise([0, *ends.tolist()])]
    others = np.searchsorted(ends, np.flatnonzero(spelt == 0xFFFF), "right").tolist()
    for i in {*others, *np.flatnonzero(np.asarray(types) != NORMAL).tolist()}:
        pieces[i] = byte_level_piece(tokens[i], types[i])
    return pieces


def _choose_pre(fields: "_Fields", pre: str, bos: str | None) -> str:
    """The key of PRE_TOKENIZERS that *pre* or the file asks for."""
    known = ", ".join(PRE_TOKENIZERS)
    if pre != "auto":
        if pre not in PRE_TOKENIZERS:
            raise ValueError(f"pre_tokenizer is {pre!r}: it must be auto or one of {known}")
        return pre
    if not fields.has("pre"):
        # BitNet b1.58 2B4T has Llama 3's tokenizer, and a GGUF file that forgets to say so.
        return "llama-bpe" if bos == "<|begin_of_text|>" else "default"
    pre = fields.get("pre", str)
    if pre not in PRE_TOKENIZERS:
        raise FormatError(
            f"{fields.name}: tokenizer.ggml.pre is {quote(pre)}, which is not supported; "
            f"pre_tokenizer= overrides it with one of {known}"
        )
    return pre


def _byte_level_encoder(fields: "_Fields", ids: dict[str, int], rule: PreTokenizer) -> Encoder:
    texts = fields.get("merges", list)
    merges = [text.partition(" ")[::2] for text in texts]
    # All is checked here, since the library panics over some merges that make no token.
    if not all(map(ids.__contains__, chain(chain.from_iterable(merges), map("".join, merges)))):
        for i, (left, right) in enumerate(merges):
            for part in (left, right, left + right):
                if part not in ids:
                    what = f"{i} is {quote(texts[i])}, but {quote(part)} is not a token"
                    raise fields.error("merges", what)
    encoder = Encoder(models.BPE(ids, merges, ignore_merges=rule.ignore_merges))
    cuts = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in rule.passes]
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoder.pre_tokenizer = pre_tokenizers.Sequence([*cuts, spell])
    return encoder


class _Fields:
    """The keys ``tokenizer.ggml.*`` of a file, checked as they are read."""

    def __init__(self, metadata: Mapping[str, object], name: str) -> None:
        self.name = name
        self._metadata = metadata
        self._count = len(self.tokens())

    def error(self, key: str, problem: str) -> FormatError:
        return FormatError(f"{self.name}: tokenizer.ggml.{key} {problem}")

    def has(self, key: str) -> bool:
        return f"tokenizer.ggml.{key}" in self._metadata

    def get(self, key: str, kind: type[_T]) -> _T:
        if not self.has(key):
            raise self.error(key, "is missing")
        value = self._metadata[f"tokenizer.ggml.{key}"]
        if type(value) is not kind:
            raise self.error(key, f"is {quote(value)}, which is no {kind.__name__}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        return self.get(key, bool) if self.has(key) else default

    def adds(self, token: str, token_id: int | None, default: bool) -> bool:
        """Whether BOS or EOS is added, which needs one."""
        if not self.has(f"add_{token}_token"):
            return default and token_id is not None
        adds = self.get(f"add_{token}_token", bool)
        if adds and token_id is None:
            raise self.error(f"{token}_token_id", f"is missing, but add_{token}_token is true")
        return adds

    def token_id(self, key: str) -> int | None:
        if not self.has(key):
            return None
        value = self.get(key, int)
        if not 0 <= value < self._count:
            raise self.error(key, f"is {value}, but there are {self._count} tokens")
        return value

    def tokens(self) -> list[str]:
        tokens: list[str] = self.get("tokens", list)
        if not tokens:
            raise self.error("tokens", "is empty")
        return tokens

    def types(self) -> list[int]:
        """The type of every token; all are normal where the file does not say."""
        if not self.has("token_type"):
            return [NORMAL] * self._count
        return self._numbers("token_type", "iu")

    def scores(self) -> list[float]:
        scores: list[float] = self._numbers("scores", "f")
        for i, score in enumerate(scores):
            if math.isnan(score):
                raise self.error("scores", f"of token {i} is NaN")
        return scores

    def _numbers(self, key: str, kinds: str) -> list[Any]:
        values = self.get(key, np.ndarray)
        if values.dtype.kind not in kinds:
            raise self.error(key, f"holds {values.dtype}, which it should not")
        if len(values) != self._count:
            raise self.error(key, f"has {len(values)} entries for {self._count} tokens")
        entries: list[Any] = values.tolist()
        return entries
