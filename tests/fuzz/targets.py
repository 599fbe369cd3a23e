"""What is fuzzed: each target takes bytes of a stranger, and may raise FormatError alone."""

import atexit
import hashlib
import json
import os
import random
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mutate import Mutate, mutate_bytes, mutate_json

from bitnet_lut import _native
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.base import Checkpoint
from bitnet_lut.demo import MODEL
from bitnet_lut.errors import FormatError, GrammarError
from bitnet_lut.families import config_from_hf, tensor_shapes
from bitnet_lut.formats.safetensors import SafetensorsFile, open_folder, parse_json
from bitnet_lut.model import Model
from bitnet_lut.runtime.choose import read_measurements
from bitnet_lut.runtime.conversation import Conversation
from bitnet_lut.runtime.cpu import choose_isa
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.text.grammar import Grammars
from bitnet_lut.text.sandbox import BoundedTemplate
from bitnet_lut.text.tokenizer import Tokenizer

CORPUS = Path(__file__).with_name("corpus")
_MEMORY = Path("/dev/shm")
_WORK = Path(tempfile.mkdtemp(prefix="bitnet_lut-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, _WORK, ignore_errors=True)
_TEXTS = ("", "ab", " a<s>b\u2581\u0120 12", "\0\U0001f642e\u0301")
_SHARDS = ("one.safetensors", "two-00001-of-2.safetensors")
_ISA = choose_isa("auto")
_MOST_BLOCKS = 4  # a config may ask for 1024, each of which takes time


@dataclass(frozen=True)
class Target:
    """execute: what the bytes are given to. mutate: how they are changed. seeds: to begin with."""

    execute: Callable[[bytes], None]
    mutate: Mutate
    seeds: Sequence[bytes]


def _seeds(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def _folder(name: str) -> Path:
    folder = _WORK / name
    folder.mkdir(exist_ok=True)
    return folder


def _read_all(checkpoint: Checkpoint) -> None:
    if checkpoint.config.block_count > _MOST_BLOCKS:
        return
    for name, shape in tensor_shapes(checkpoint.config).items():
        with suppress(FormatError):
            if len(shape) == 1:
                checkpoint.vector(name)
                continue
            checkpoint.matrix(name)
            stored = checkpoint.stored(name)
            if stored is not None:
                stored[1:3]


# Hugging Face folders


def _safetensors(data: bytes) -> None:
    path = _folder("safetensors") / "x.safetensors"
    path.write_bytes(data)
    for mapped in (False, True):
        file = SafetensorsFile(path, mapped=mapped)
        for name in file.tensors:
            file.array(name)


def _mutate_safetensors(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Mostly the header alone, with the right number in front of it."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng, others)
    end = 8 + struct.unpack("<Q", data[:8])[0]
    headers = [one[8 : 8 + struct.unpack("<Q", one[:8])[0]] for one in others]
    header = mutate_json(data[8:end], rng, headers)
    return struct.pack("<Q", len(header)) + header + data[end:]


def _index(data: bytes) -> None:
    folder = _folder("index")
    for name, shard in zip(_SHARDS, _seeds("safetensors"), strict=True):
        if not (folder / name).exists():
            (folder / name).write_bytes(shard)
    (folder / "model.safetensors.index.json").write_bytes(data)
    open_folder(folder)


def _config(data: bytes) -> None:
    config = config_from_hf(parse_json(data, "config.json"), "config.json")
    if config.block_count <= _MOST_BLOCKS:
        tensor_shapes(config)


def _checkpoint(data: bytes) -> None:
    """A config.json, and behind it as many bytes of safetensors as are left."""
    folder = _folder("checkpoint")
    end = data.find(b"\n")
    (folder / "config.json").write_bytes(data[:end])
    (folder / "model.safetensors").write_bytes(data[end + 1 :])
    with open_checkpoint(folder) as checkpoint:
        _read_all(checkpoint)


def _mutate_checkpoint(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    config, _, file = data.partition(b"\n")
    parts = [other.partition(b"\n") for other in others]
    if rng.random() < 0.5:
        config = mutate_json(config, rng, [part[0] for part in parts]).replace(b"\n", b" ")
    else:
        file = _mutate_safetensors(file, rng, [part[2] for part in parts])
    return config + b"\n" + file


def _tokenizer(data: bytes) -> None:
    folder = _folder("tokenizer")
    (folder / "tokenizer.json").write_bytes(data)
    (folder / "config.json").write_text('{"bos_token_id": 0}')
    tokenizer = Tokenizer.from_folder(folder)
    for text in _TEXTS:
        with suppress(ValueError):
            tokenizer.decode(tokenizer.encode(text))
            tokenizer.encode(text, special=False)


def _tokenizer_configs(data: bytes) -> None:
    """The files beside a tokenizer.json, which name BOS and EOS: an object of them."""
    folder = _folder("tokenizer_configs")
    if not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").write_bytes(_seeds("tokenizer")[0])
    files: Any = None
    with suppress(ValueError, RecursionError):
        files = json.loads(data)
    for name in ("tokenizer_config.json", "generation_config.json", "config.json"):
        inside = files.get(name) if isinstance(files, dict) else files
        (folder / name).write_text(json.dumps(inside))
    Tokenizer.from_folder(folder)


# Native files


def _native_file(data: bytes) -> None:
    """All that reads a file of tl5 and strips, and a step of the engine with it."""
    with open_checkpoint(data) as checkpoint:
        _read_all(checkpoint)
        names = [*checkpoint.layouts, *checkpoint.strips]
        tensors = checkpoint.tensors(as_packed=names)
        if checkpoint.config.vocab_size > 1000 or checkpoint.config.block_count > _MOST_BLOCKS:
            return
        weights = _native.Weights(checkpoint.config, tensors, isa=_ISA, threads=1)
    engine = Engine(weights, _native.Pool(1), kind="f16", context=4)
    ids = np.arange(min(3, engine.config.vocab_size), dtype=np.int32)
    logits = np.empty((1, engine.config.vocab_size), np.float32)
    engine.step([(engine.cache(4), ids)], np.array([len(ids) - 1]), logits)


# Templates of files, and formats of requests


def _template(data: bytes) -> None:
    template = BoundedTemplate(data.decode("utf-8", "replace"), "chat template")
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a\nb {{ x }}"},
        {"role": "assistant", "content": ""},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for more in ({}, {"tools": tools, "add_generation_prompt": True}):
        with suppress(ValueError):  # the template fails
            template.render({"messages": chat, "bos_token": "<s>", "eos_token": "</s>", **more})


@cache
def _grammars() -> tuple[Grammars, Tokenizer]:
    folder = _folder("schema")
    (folder / "tokenizer.json").write_bytes(_bytes_tokenizer())
    (folder / "config.json").write_text('{"eos_token_id": 0}')
    tokenizer = Tokenizer.from_folder(folder)
    return Grammars(tokenizer), tokenizer


def _bytes_tokenizer() -> bytes:
    """A vocabulary of an end and the 95 printable bytes of ASCII, all but the space themselves."""
    state = json.loads(_seeds("tokenizer")[0])
    vocab = {"<s>": 0, "\u0120": 1} | {chr(33 + i): 2 + i for i in range(94)}
    state["model"] |= {"vocab": vocab, "merges": []}
    return json.dumps(state | {"post_processor": None}).encode()


def _schema(data: bytes) -> None:
    grammars, tokenizer = _grammars()
    with suppress(GrammarError, TypeError):
        grammar = grammars.compile(parse_json(data, "schema"))
        constraint = grammar.start()
        for _ in range(24):
            ids = np.flatnonzero(constraint.allowed())
            if not ids.size or int(ids[-1]) in tokenizer.eos_ids:
                break
            constraint.accept(int(ids[-1]))
            constraint.forced()


# Saved states


@cache
def _model() -> Model:
    return Model(MODEL, threads=1, context=16)


def _saved(data: bytes) -> None:
    """A header, to which the model's fingerprint, two tokens of cache and a checksum are added."""
    model = _model()
    with suppress(ValueError, RecursionError):
        header = json.loads(data)
        if isinstance(header, dict):
            data = json.dumps({"model": model._engine.fingerprint(), **header}).encode()
    cached = bytes(model._engine.cache_bytes(2))
    start = b"BLUTSAVE" + struct.pack("<IIQ", 1, len(data), len(cached))
    whole = start + data + cached
    path = _folder("saved") / "state"
    path.write_bytes(whole + hashlib.blake2b(whole, digest_size=32).digest())
    if b"conversation" in data:
        Conversation.load(model, path)
    else:
        model.load_session(path)


# The user's cache


def _measurements(data: bytes) -> None:
    folder = _folder("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    file = folder / "bitnet_lut" / "kernels.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for machine in read_measurements().values():
            assert all(isinstance(kernel, str) for kernel in machine.values())


TARGETS = {
    "safetensors": Target(_safetensors, _mutate_safetensors, _seeds("safetensors")),
    "index": Target(_index, mutate_json, _seeds("index")),
    "config": Target(_config, mutate_json, _seeds("config")),
    "checkpoint": Target(_checkpoint, _mutate_checkpoint, _seeds("checkpoint")),
    "tokenizer": Target(_tokenizer, mutate_json, _seeds("tokenizer")),
    "tokenizer_configs": Target(_tokenizer_configs, mutate_json, _seeds("tokenizer_configs")),
    "native": Target(_native_file, mutate_bytes, _seeds("native")),
    "template": Target(_template, mutate_bytes, _seeds("template")),
    "schema": Target(_schema, mutate_json, _seeds("schema")),
    "saved": Target(_saved, mutate_json, _seeds("saved")),
    "measurements": Target(_measurements, mutate_json, _seeds("measurements")),
}
