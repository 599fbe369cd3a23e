"""Checks of what a training run wrote about itself, beside its weights or in the metadata."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitnet_lut.checkpoint.state_dict import SUFFIXES
from bitnet_lut.diagnose.findings import Finding, fault, ok, warning
from bitnet_lut.diagnose.inspection import some
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.input import read_text

__all__ = ["CHECKS"]

_LARGEST = 2**26  # bytes of a trainer_state.json that is read
_DIFFUSION = re.compile(r"diffusion|llada|\bdream|mdlm|\bsedd|\bmdm\b", re.I)
_MASK = re.compile(r"(<\|?|\[)(mdm_?)?mask(\|?>|\])", re.I)
_LEARNED_LOSS = 0.8  # of the loss of blind guessing


def check_trainer_state(subject: Subject) -> Iterator[Finding]:
    """Steps and losses in trainer_state.json."""
    path = subject.folder / "trainer_state.json"
    state = _json(path)
    if state is None or not _is_folder(subject):
        return
    step = state.get("global_step")
    history = state.get("log_history")
    entries = history if isinstance(history, list) else []
    losses = [
        entry["loss"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("loss"), int | float)
    ]
    measured = f"global_step {step}"
    if losses:
        measured += f", {len(losses)} losses from {losses[0]:.3g} to {losses[-1]:.3g}"
    blind = math.log(subject.config.vocab_size)
    expected = f"steps above 0, and losses that end far below {blind:.3g}, those of blind guessing"
    if step == 0:
        yield subject.suspicion(
            fault(
                "records: trainer_state.json",
                measured,
                expected,
                where="global_step",
                meaning="these weights were saved before the first step, or the run was "
                "started over",
                fix="take a later checkpoint, or look why the run did not save one",
                verdict="untrained",
                certainty=0.92,
            )
        )
    elif losses and not math.isfinite(losses[-1]):
        yield subject.suspicion(
            fault(
                "records: trainer_state.json",
                measured,
                expected,
                where="log_history",
                meaning="the training had diverged when these weights were saved",
                fix="take a checkpoint from before, and train on with a lower learning rate",
                verdict="damaged",
                certainty=0.6,
            )
        )
    elif losses and losses[-1] > _LEARNED_LOSS * blind:
        yield subject.suspicion(
            fault(
                "records: trainer_state.json",
                measured,
                expected,
                where="log_history",
                meaning="the training had hardly begun, or learned nothing",
                fix="train it longer; look at data and learning rate if the loss does not fall",
                verdict="undertrained",
                certainty=0.6,
            )
        )
    else:
        yield ok("records: trainer_state.json", measured, expected)


def check_quantization(subject: Subject) -> Iterator[Finding]:
    """What config.json says of quantization, against what the files hold."""
    settings = _json(subject.folder / "config.json") if _is_folder(subject) else None
    if settings is None:
        return
    stated = settings.get("quantization_config")
    held = "real-valued weights" if subject.masters else "ternary weights"
    if not subject.ternary:
        held = "real-valued weights, which nothing says to be rounded"
    if not isinstance(stated, dict):
        measured = f"no quantization_config; {held}"
        mode = "online" if subject.masters else ""
    else:
        mode = str(stated.get("quantization_mode", "offline"))
        linear = stated.get("linear_class", "bitlinear")
        measured = f"{linear}, {mode}; {held}"
    check, expected = (
        "records: quantization",
        "offline for packed weights; online for masters, which are rounded when they are loaded",
    )
    if mode == "offline" and subject.masters:
        yield warning(
            check,
            measured,
            expected,
            where="config.json",
            meaning="transformers takes these weights for packed ones, or does not round them",
            fix="set quantization_mode to online, or convert it with --type hf, which packs them",
            verdict="quantization",
        )
    else:
        yield ok(check, measured, expected)


def check_diffusion(subject: Subject) -> Iterator[Finding]:
    """Signs of a model that fills in masks instead of continuing a text."""
    signs = [*_stated_signs(subject)]
    check = "records: kind of model"
    expected = "a model that continues a text from left to right"
    if any(sure for sure, _ in signs):
        yield fault(
            check,
            some(sign for _, sign in signs),
            expected,
            meaning="a diffusion model: it fills in masked tokens, and writes nonsense from "
            "left to right",
            fix="run it with the program of its makers, which unmasks in several passes",
            verdict="diffusion",
            certainty=0.96,
        )
    elif signs:
        yield subject.suspicion(
            fault(
                check,
                some(sign for _, sign in signs),
                expected,
                meaning="a mask token: it may be a diffusion model, which is not decoded from "
                "left to right",
                fix="look at the model's card how it is meant to be run",
                verdict="diffusion",
                certainty=0.5,
            )
        )
    else:
        yield ok(check, "no mask token", expected)


def _stated_signs(subject: Subject) -> Iterator[tuple[bool, str]]:
    """What hints at diffusion, and whether it is sure."""
    metadata = _metadata(subject)
    architecture = str(metadata.get("general.architecture", ""))
    config = _json(subject.folder / "config.json") or {} if _is_folder(subject) else {}
    names = [architecture, config.get("model_type"), *_list(config.get("architectures"))]
    auto = config.get("auto_map")
    names += list(auto.values()) if isinstance(auto, dict) else []
    for name in names:
        if isinstance(name, str) and _DIFFUSION.search(name):
            yield True, f"the architecture is {name}"
    for key in metadata:
        if key.startswith("diffusion."):
            yield True, f"the metadata have {key}"
    if isinstance(config.get("mask_token_id"), int):
        yield True, f"mask_token_id is {config['mask_token_id']} in config.json"
    if isinstance(metadata.get("tokenizer.ggml.mask_token_id"), int):
        yield True, f"tokenizer.ggml.mask_token_id is {metadata['tokenizer.ggml.mask_token_id']}"
    for text in _control_tokens(subject, metadata):
        if _MASK.fullmatch(text):
            yield False, f"the vocabulary has {text}"


def _control_tokens(subject: Subject, metadata: Mapping[str, Any]) -> Iterator[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list):
        yield from tokens
    if _is_folder(subject):
        stated = (_json(subject.folder / "tokenizer.json") or {}).get("added_tokens")
        for token in _list(stated):
            if isinstance(token, dict) and isinstance(token.get("content"), str):
                yield token["content"]


def _is_folder(subject: Subject) -> bool:
    return subject.source.is_dir() or subject.source.suffix in SUFFIXES


def _metadata(subject: Subject) -> Mapping[str, Any]:
    """The metadata of a GGUF file, also of one that cannot be run; empty for others."""
    if _is_folder(subject):
        return {}
    try:
        with GGUFFile(subject.source) as file:
            return file.metadata
    except FormatError:
        return {}


def _json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no file, or none that holds one."""
    if not path.is_file():
        return None
    try:
        found = json.loads(read_text(path, _LARGEST))
    except (FormatError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def check_run(subject: Subject) -> Iterator[Finding]:
    """Which checkpoint of a training run is looked at."""
    if subject.checkpoints:
        yield ok(
            "records: training run",
            f"{subject.source.name}, the newest of {subject.checkpoints} checkpoints",
            "a folder with weights, or one with checkpoints",
        )


CHECKS = (check_run, check_diffusion, check_trainer_state, check_quantization)
