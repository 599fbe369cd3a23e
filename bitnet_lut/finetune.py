"""Train a ternary model on a text of yours: ``python -m bitnet_lut.finetune text.txt -o out.gguf``.

An example of the whole way: the model of the package becomes one of PyTorch, learns the text, is
written as a GGUF file, and goes on from the text's first words. That takes a few minutes on two CPU
cores. The last tenth of the text is not trained on: how well the model predicts it shows
the progress.

Needs ``pip install 'bitnet_lut[train]'``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bitnet_lut.demo import MODEL
from bitnet_lut.model import Model
from bitnet_lut.torch import ExportError, export, load

# Behind bitnet_lut.torch, which says what to install where it is missing.
import torch  # isort: skip
from torch import Tensor  # isort: skip

__all__ = ["main"]

_SHORTEST = 40  # tokens; less text teaches nothing
_WARM_UP = 0.1  # share of the steps
_PROMPT = 6  # words
_SHOWN = 60  # tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, write, and run what was written."""
    options = _arguments(arguments)
    torch.manual_seed(options.seed)
    try:
        _run(options)
    except (OSError, ValueError, ExportError) as error:
        sys.exit(f"error: {error}")


def _run(options: argparse.Namespace) -> None:
    text = options.text.read_text(encoding="utf-8")
    if not options.output.absolute().parent.is_dir():
        raise ValueError(f"{options.output}: no such folder")
    with Model(options.model) as original:
        tokenizer = original.tokenizer
        ids = tokenizer.encode(text, add_bos=False)
        if len(ids) < _SHORTEST:
            raise ValueError(
                f"{options.text}: {len(ids)} tokens are too few, at least {_SHORTEST} are needed"
            )
        prompt = " ".join(text.split()[:_PROMPT])
        _show("before", original, prompt)
    start = tokenizer.encode("", add_eos=False)  # BOS, if the model has it
    taught, held_out = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    model: Any = load(options.model)
    length = min(options.length, model.config.max_position_embeddings)
    before = _loss(model, held_out, start, length)
    _train(model, taught, start, length, options)
    after = _loss(model, held_out, start, length)
    print(f"loss of the held-out text: {before:.3f} before, {after:.3f} after")
    written = export(model, options.output, tokenizer=options.model, check_text=text)
    check = written.comparison
    print(
        f"wrote {written.path}; over {check.tokens} tokens each step is that of the model to "
        f"{check.step_difference:.0e}, and {check.agreement:.1%} of the next tokens are the same"
    )
    for warning in written.warnings:
        print(warning, file=sys.stderr)
    with Model(options.output) as trained:
        _show("after", trained, prompt)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bitnet_lut.finetune", description=(__doc__ or "").split(":")[0]
    )
    parser.add_argument("text", type=Path, help="a file of UTF-8 text")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the GGUF file to write")
    parser.add_argument("--model", type=Path, default=MODEL, help="what to start from")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8, help="pieces of text in a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a piece")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def _train(
    model: Any, ids: list[int], start: list[int], length: int, options: argparse.Namespace
) -> None:
    """Train on random pieces of a text, each behind *start*."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    width = min(length - len(start), len(ids))
    model.train()
    with tqdm(range(options.steps), unit="step", disable=None) as progress:
        for step in progress:
            done = step / options.steps
            rate = options.rate * min((step + 1) / (options.steps * _WARM_UP), 1 - done)
            optimizer.param_groups[0]["lr"] = rate
            places = torch.randint(len(ids) - width + 1, (options.batch,)).tolist()
            rows = torch.tensor([start + ids[at : at + width] for at in places])
            loss: Tensor = model(rows, labels=rows, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.set_postfix(loss=f"{loss.item():.3f}")


def _loss(model: Any, ids: list[int], start: list[int], length: int) -> float:
    """Mean cross-entropy of a text, in nats a token, computed in pieces behind *start*."""
    width = length - len(start)
    total = 0.0
    count = 0
    model.eval()
    with torch.no_grad():
        for at in range(0, len(ids), width):
            row = torch.tensor([start + ids[at : at + width]])
            if row.shape[1] > 1:
                total += float(model(row, labels=row, use_cache=False).loss) * (row.shape[1] - 1)
                count += row.shape[1] - 1
    return total / count


def _show(when: str, model: Model, prompt: str) -> None:
    print(f"--- {when}\n{prompt}{model.generate(prompt, max_tokens=_SHOWN).text}\n---")


if __name__ == "__main__":
    main()
