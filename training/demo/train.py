"""Train the demonstration model: ``python -m training.demo.train FOLDER``.

Writes FOLDER/master (a Hugging Face folder of real-valued weights, which transformers'
BitNetForCausalLM loads and rounds online), FOLDER/model.gguf, and the loss curve as loss.csv and
loss.png. An interrupted run goes on from its last checkpoint: until the decay begins the learning
rate does not depend on the number of steps, so that may still be changed then.

Needs ``pip install 'bitnet_lut[train]'``.
"""

import argparse
import csv
import math
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib import pyplot
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from bitnet_lut.convert import convert
from bitnet_lut.torch import load
from training.demo.corpus import Piece, documents
from training.demo.export import write_gguf, write_master
from training.demo.network import BitNet, Sizes
from training.demo.vocabulary import train_vocabulary

__all__ = ["main"]

# Rows of a batch are this long, every LONG_EVERY-th batch twice that.
LENGTH = 256
LONG_EVERY = 8
# A row is full after this many documents that do not fit; they go to the next row.
FILLERS = 4
# Weight of a token that does not follow from what comes before it.
UNTAUGHT = 0.1
WEIGHT_DECAY = 0.1
REPORT_EVERY = 20


class Batch(NamedTuple):
    """Packed rows: the arguments of `BitNet.loss`."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    targets: Tensor
    weights: Tensor


def main() -> None:
    """Train, then export."""
    options = _arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    tokenizer = _vocabulary(options)
    sizes = Sizes(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=options.layers)
    model = BitNet(sizes)
    if options.start:
        model.load_state_dict(load(options.start).state_dict(), strict=False)
    _train(model, tokenizer, options)
    write_master(options.folder / "master", model, tokenizer)
    write_gguf(options.folder / "model.gguf", options.folder / "master")
    _plot(options.folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("folder", type=Path, help="where everything is written")
    parser.add_argument("--start", type=Path, help="a model that the training goes on from")
    parser.add_argument("--steps", type=int, default=4400)
    parser.add_argument("--tokens", type=int, default=2048, help="of a step")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=100, help="steps until it is reached")
    parser.add_argument("--decay", type=float, default=0.3, help="last part of the steps")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=1536)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--keep-every", type=int, help="steps between models that are kept")
    return parser.parse_args()


def _vocabulary(options: argparse.Namespace) -> Tokenizer:
    path = options.folder / "tokenizer.json"
    if not path.exists() and options.start:
        with TemporaryDirectory() as folder:
            convert(options.start, Path(folder) / "start", type="hf")
            (Path(folder) / "start" / "tokenizer.json").rename(path)
    elif not path.exists():
        train_vocabulary(options.vocab, options.seed).save(str(path))
    return Tokenizer.from_file(str(path))


def _train(model: BitNet, tokenizer: Tokenizer, options: argparse.Namespace) -> None:
    optimizer = _optimizer(model, options.rate)
    checkpoint = options.folder / "checkpoint.pt"
    curve: list[tuple[int, float, float]] = []
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start, curve = state["step"], state["curve"]
    if options.keep_every and start == 0:
        _keep(options.folder / "step-00000", model, tokenizer)
    total, counted = 0.0, 0
    with tqdm(total=options.steps, initial=start, unit="step") as progress:
        for step in range(start, options.steps):
            rate = _rate(step, options)
            decaying = step >= options.steps * (1 - options.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.param_groups[0]["weight_decay"] = 0.0 if decaying else WEIGHT_DECAY
            loss = model.loss(*_batch(tokenizer, options, step))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total, counted = total + loss.item(), counted + 1
            progress.update()
            done = step + 1
            if done % REPORT_EVERY == 0 or done == options.steps:
                curve.append((done, total / counted, rate))
                progress.set_postfix(loss=f"{total / counted:.4f}")
                total, counted = 0.0, 0
            if done % options.save_every == 0 or done == options.steps:
                _save(checkpoint, done, model, optimizer, curve)
            if options.keep_every and done % options.keep_every == 0:
                _keep(options.folder / f"step-{done:05}-loss-{curve[-1][1]:.3f}", model, tokenizer)


def _optimizer(model: BitNet, rate: float) -> torch.optim.AdamW:
    """The optimizer; its first group has the weights that decay."""
    matrices = [p for name, p in model.named_parameters() if "_proj" in name]
    others = [p for name, p in model.named_parameters() if "_proj" not in name]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=rate, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True
    )


def _rate(step: int, options: argparse.Namespace) -> float:
    """Warm-up, a plateau, and for the last part of the steps half a cosine down to zero."""
    left = (options.steps - step) / (options.steps * options.decay)
    falling = (1 - math.cos(math.pi * min(1.0, left))) / 2
    return float(options.rate * min(1.0, (step + 1) / options.warmup) * falling)


def _save(
    path: Path,
    step: int,
    model: BitNet,
    optimizer: torch.optim.Optimizer,
    curve: list[tuple[int, float, float]],
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "curve": curve,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
    with (path.parent / "loss.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "rate"])
        writer.writerows((step, f"{loss:.5f}", f"{rate:.3g}") for step, loss, rate in curve)


def _keep(folder: Path, model: BitNet, tokenizer: Tokenizer) -> None:
    """Write the model as it is now, as `main` does at the end."""
    write_master(folder / "master", model, tokenizer)
    write_gguf(folder / "model.gguf", folder / "master")


def _batch(tokenizer: Tokenizer, options: argparse.Namespace, step: int) -> Batch:
    """The batch of *step*: whole documents, put one after another into rows."""
    long = step % LONG_EVERY == LONG_EVERY - 1
    length = 2 * LENGTH if long else LENGTH
    shape = (options.tokens // length, length + 1)
    ids, positions, numbers = (np.zeros(shape, np.int64) for _ in range(3))
    weights = np.zeros(shape, np.float32)
    short_texts = documents(options.seed, step)
    texts = documents(options.seed, step, long=True) if long else short_texts
    waiting: list[tuple[list[int], list[bool]]] = []
    for row in range(shape[0]):
        end, earlier = 0, iter(waiting)
        unfit: list[tuple[list[int], list[bool]]] = []
        while len(unfit) < FILLERS:
            # Short documents fill the end of a row, where the next one of its kind does not fit.
            document = next(earlier, None) or _encode(
                tokenizer, next(short_texts if unfit else texts)
            )
            encoded, taught = document
            if end + len(encoded) > length + 1:
                unfit.append(document)
                continue
            place = np.s_[row, end : end + len(encoded)]
            ids[place], positions[place] = encoded, np.arange(len(encoded))
            numbers[place] = end + 1
            weights[place] = np.where(taught, 1.0, UNTAUGHT)
            weights[row, end] = 0.0  # a document does not predict the start of the next one
            end += len(encoded)
        waiting = [*unfit, *earlier]
    return Batch(
        ids=torch.from_numpy(ids[:, :-1]),
        positions=torch.from_numpy(positions[:, :-1]),
        documents=torch.from_numpy(numbers[:, :-1]),
        targets=torch.from_numpy(ids[:, 1:]),
        weights=torch.from_numpy(weights[:, 1:]),
    )


def _encode(tokenizer: Tokenizer, document: list[Piece]) -> tuple[list[int], list[bool]]:
    """The ids of a document, and which are taught: those that begin in a piece that is."""
    ids: list[int] = []
    taught: list[bool] = []
    starts = [i for i, piece in enumerate(document) if i == 0 or piece.apart]
    for start, end in pairwise([*starts, len(document)]):
        together = document[start:end]
        encoding = tokenizer.encode(
            "".join(piece.text for piece in together), add_special_tokens=False
        )
        marks = [piece.taught for piece in together for _ in piece.text]
        ids += encoding.ids
        taught += [marks[first] for first, _ in encoding.offsets]
    return ids, taught


def _plot(folder: Path) -> None:
    """Draw loss.csv."""
    with (folder / "loss.csv").open(newline="") as file:
        points = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    steps, losses = zip(*points, strict=True)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.semilogy(steps, losses)
    axes.set(xlabel="step", ylabel="weighted cross-entropy of a token (nats)")
    axes.grid(which="both", alpha=0.3)
    figure.savefig(folder / "loss.png", dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
