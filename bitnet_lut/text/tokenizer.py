"""Text to token ids and back."""

import codecs
import ctypes
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from bitnet_lut.text.guard import guarded

if TYPE_CHECKING:
    from bitnet_lut.text.vocabulary import Vocabulary

__all__ = ["StreamDecoder", "Tokenizer"]


class Tokenizer:
    """The vocabulary of a model and its rules. Threads may share one.

    vocab_size: ids are 0 .. vocab_size - 1.
    bos_id, eos_id: None where the model has none.
    eos_ids: every id that ends a generation, eos_id among them.
    add_bos, add_eos: whether `encode` puts these around a text unless told otherwise.
    pre: how byte-level BPE cuts words (a key of ``vocabulary.PRE_TOKENIZERS``); empty for
        SentencePiece and for a folder, whose tokenizer.json says it at length.
    """

    def __init__(self, vocabulary: "Vocabulary") -> None:
        """Take over *vocabulary*; `from_gguf` and `from_folder` make one."""
        self._encoder = vocabulary.encoder
        self._lock = threading.Lock()
        # One string and its cuts: as many bytes objects would take 6 MB for 128 000 tokens.
        self._pieces = b"".join(vocabulary.pieces)
        self._cuts = np.cumsum([0, *map(len, vocabulary.pieces)])
        self._special = vocabulary.special
        self._adds_space = vocabulary.adds_space
        self.vocab_size = len(vocabulary.pieces)
        self.bos_id = vocabulary.bos_id
        self.eos_id = vocabulary.eos_id
        self.eos_ids = vocabulary.eos_ids
        self.add_bos = vocabulary.add_bos
        self.add_eos = vocabulary.add_eos
        self.pre = vocabulary.pre
        _return_memory()

    def __repr__(self) -> str:
        """Its size and its rules."""
        rules = f"byte-level BPE, {self.pre}" if self.pre else "its own rules"
        return f"<Tokenizer: {self.vocab_size:,} ids, {rules}>"

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object], *, name: str, pre: str = "auto") -> Self:
        """Read the ``tokenizer.ggml.*`` keys of a GGUF file.

        name: the file, for errors.
        pre: "auto" takes the file's ``tokenizer.ggml.pre``, or where that is missing "llama-bpe" if
            BOS is ``<|begin_of_text|>`` and else "default". A key of ``vocabulary.PRE_TOKENIZERS``
            overrides the file: "default" gives the ids of bitnet.cpp and llama.cpp for the official
            BitNet b1.58 2B4T file, "falcon3-bitnet.cpp" those of bitnet.cpp for Falcon3.
        Raises FormatError for keys that are missing, unsupported or contradict each other, and
        ValueError for a *pre* that is unknown or given for a SentencePiece vocabulary.
        """
        from bitnet_lut.text import vocabulary  # loads the library `tokenizers`

        with guarded(name):
            return cls(vocabulary.from_gguf(metadata, name, pre))

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str]) -> Self:
        """Read a Hugging Face folder: tokenizer.json, with the ids it gives.

        BOS and EOS are those of the first of tokenizer_config.json, special_tokens_map.json,
        generation_config.json and config.json that names one; all that any of them names as EOS
        end a generation.
        Raises FormatError, and OSError if a file cannot be opened.
        """
        from bitnet_lut.text import vocabulary_hf  # loads the library `tokenizers`

        return cls(vocabulary_hf.from_folder(path))

    def encode(
        self,
        text: str,
        *,
        add_bos: bool | None = None,
        add_eos: bool | None = None,
        special: bool = True,
    ) -> list[int]:
        """The ids of *text*.

        add_bos, add_eos: None follows the model. A text that spells BOS itself gets a second one.
        special: False takes the texts of control tokens literally; those of user-defined tokens
            (token type 4) are tokens either way.
        Raises TypeError if *text* is not a str, ValueError if it holds lone surrogates, or if the
        rules of a tokenizer.json fail on it.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text must be a str, not {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the text has a lone surrogate at {error.start}") from None
        with self._lock, guarded("the tokenizer cannot encode this text", ValueError):
            self._encoder.encode_special_tokens = not special
            ids = self._encoder.encode(text, add_special_tokens=False).ids
        if self.add_bos if add_bos is None else add_bos:
            ids.insert(0, self._need(self.bos_id, "BOS"))
        if self.add_eos if add_eos is None else add_eos:
            ids.append(self._need(self.eos_id, "EOS"))
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False, start: bool = True) -> str:
        """The text of *ids*; bytes that are not UTF-8 become U+FFFD.

        skip_special: leave out control tokens and the ends.
        start: the ids begin a text, so the space that SentencePiece put before it is taken away.
        Raises TypeError for an id that is not a whole number, ValueError for one outside the
        vocabulary.
        """
        stream = self.stream(skip_special=skip_special, start=start)
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, *, skip_special: bool = False, start: bool = True) -> "StreamDecoder":
        """Decode ids one by one, as `decode` does."""
        return StreamDecoder(self, skip_special, self._adds_space and start)

    def token_text(self, id: int) -> str:
        """How the vocabulary spells *id*, not the text it stands for."""
        self.piece(id)
        return self._encoder.id_to_token(id) or ""

    def piece(self, id: int) -> bytes:
        """The bytes *id* stands for; maybe a part of a UTF-8 character."""
        if isinstance(id, bool) or not hasattr(id, "__index__"):
            raise TypeError(f"a token id is {id!r}, it must be a whole number")
        if not 0 <= id < self.vocab_size:
            raise ValueError(f"token id {id} is outside the vocabulary of {self.vocab_size}")
        return self._pieces[self._cuts[id] : self._cuts[id + 1]]

    def is_special(self, id: int) -> bool:
        """Whether *id* is a control token or an end."""
        return id in self._special

    @property
    def special_ids(self) -> frozenset[int]:
        """All control tokens and ends, the ids for which `is_special` is true."""
        return self._special

    @staticmethod
    def _need(id: int | None, what: str) -> int:
        if id is None:
            raise ValueError(f"this model has no {what} token to add")
        return id


class StreamDecoder:
    """Turns ids into text as they come, in whole characters."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool, strip_space: bool) -> None:
        """For `Tokenizer.stream`."""
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._strip_space = strip_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id: int) -> str:
        """The text that is complete with *id*; empty in the middle of a character."""
        piece = self._tokenizer.piece(id)
        if self._tokenizer.is_special(id):
            return "" if self._skip_special else self._decoder.decode(piece)
        if self._strip_space:
            piece = piece.removeprefix(b" ")
            self._strip_space = False
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character is incomplete."""
        return self._decoder.decode(b"", final=True)


def _return_memory() -> None:
    """Give freed pages back to the system.

    Building a vocabulary of 128 000 tokens leaves 25 MB of holes in the heap of the tokenizers
    library, which glibc would keep for the life of the process.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
