"""``bitnet-lut run`` continues a prompt."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_lut.cli.generating import add_model_options, add_sampling, open_model, sampling
from bitnet_lut.cli.options import input_text, natural, positive, text

if TYPE_CHECKING:
    from bitnet_lut import Model, TextStream, Timings

SUMMARY = "continue a prompt"
EXAMPLE = 'bitnet-lut run -m model.gguf -n 64 "The capital of France is"'

_INTERRUPTED = 130
_MOST_SCHEMA = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument(
        "prompt", type=text, nargs="?", help="- or nothing: read it from standard input"
    )
    parser.add_argument("-n", "--tokens", type=positive, default=256, help="most to generate")
    parser.add_argument(
        "--stop", type=text, action="append", default=[], metavar="TEXT", help="end before TEXT"
    )
    parser.add_argument("--ignore-eos", action="store_true", help="continue past end tokens")
    parser.add_argument(
        "--no-speculate",
        dest="speculate",
        action="store_false",
        help="never check guessed tokens several in a step; the text is the same",
    )
    parser.add_argument(
        "--chat", action="store_true", help="answer the prompt, by the model's chat template"
    )
    parser.add_argument("--system", type=text, metavar="TEXT", help="with --chat: said first")
    parser.add_argument(
        "--json-schema", metavar="FILE", help="write JSON that follows the schema in FILE"
    )
    parser.add_argument(
        "--logprobs",
        type=natural,
        metavar="N",
        help="list how likely every token was, and the N likeliest beside it",
    )
    add_model_options(parser)
    add_sampling(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the continuation; the memory it takes and its speed go to standard error."""
    if options.system is not None and not options.chat:
        raise ValueError("--system is for a chat: give --chat as well")
    prompt = input_text(options.prompt, "prompt")
    schema = _read_schema(options.json_schema)
    model = open_model(options)
    stream = _start(model, prompt, schema, options)
    code = 0
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    print(flush=True)
    result = stream.result
    for token in result.logprobs or ():
        others = "".join(f"  {logprob:.3f} {_quoted(model, id)}" for id, logprob in token.top)
        print(f"{token.logprob:8.3f} {_quoted(model, token.id):20}{others}", file=sys.stderr)
    reason = result.finish_reason if code == 0 else "Ctrl-C"
    print(f"{_speeds(result.timings)}; ended by {reason}", file=sys.stderr)
    return code


def _start(model: "Model", prompt: str, schema: Any, options: argparse.Namespace) -> "TextStream":
    from bitnet_lut.runtime.options import Options

    chosen = Options(
        max_tokens=options.tokens,
        sampling=sampling(options),
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        speculate=options.speculate,
        response_format=schema,
        logprobs=options.logprobs,
    )
    if not options.chat:
        return model.stream(prompt, **chosen)
    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    return model.chat_stream(messages, **chosen)


def _quoted(model: "Model", id: int) -> str:
    return repr(model.tokenizer.piece(id).decode(errors="replace"))


def _read_schema(file: str | None) -> Any:
    """The JSON schema in *file*; None if there is no file."""
    if file is None:
        return None
    with Path(file).open("rb") as opened:
        data = opened.read(_MOST_SCHEMA + 1)
    if len(data) > _MOST_SCHEMA:
        raise ValueError(f"{file}: more than {_MOST_SCHEMA} bytes, too many for a schema")
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError(f"{file}: a schema is an object")
    return schema


def _speeds(timings: "Timings") -> str:
    if not timings.prompt_seconds:
        return f"prompt: {timings.prompt_tokens} tokens, not finished"
    return (
        f"prompt: {timings.prompt_tokens} tokens, {timings.prompt_tokens_per_second:.1f} tokens/s; "
        f"first token after {timings.time_to_first_token:.2f} s; "
        f"generation: {timings.generated_tokens} tokens, "
        f"{timings.generation_tokens_per_second:.1f} tokens/s"
    )
