"""``bitnet-lut run`` continues a prompt."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_lut.cli.generating import (
    add_model_options,
    add_sampling,
    given_sampling,
    open_model,
    sampling,
)
from bitnet_lut.cli.options import input_text, natural, positive, text, text_file

if TYPE_CHECKING:
    from bitnet_lut import Generation, Model, TextStream, Timings
    from bitnet_lut.runtime.options import Options

SUMMARY = "continue a prompt"
EXAMPLE = 'bitnet-lut run -m model.gguf -n 64 "The capital of France is"'

_INTERRUPTED = 130
_MOST_SCHEMA = 2**20  # bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument(
        "prompt", type=text, nargs="?", help="- or nothing: read it from standard input"
    )
    parser.add_argument("-n", "--tokens", type=positive, default=256, help="most to generate")
    parser.add_argument(
        "--texts", type=positive, default=1, metavar="N", help="write N texts, with a seed each"
    )
    _add_ends(parser)
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
    parser.add_argument("--template", metavar="NAME", help="with --chat: one of several templates")
    _add_formats(parser)
    for name, what in (("--logprobs", "token"), ("--prompt-logprobs", "token of the prompt")):
        parser.add_argument(
            name,
            type=natural,
            metavar="N",
            help=f"list how likely every {what} was, and the N likeliest beside it",
        )
    add_model_options(parser)
    add_sampling(parser)


def _add_ends(parser: argparse.ArgumentParser) -> None:
    """Add what ends a text, and what must not come in it."""
    lists: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--stop", type=text, **lists, metavar="TEXT", help="end before TEXT")
    parser.add_argument(
        "--stop-token-id", type=natural, **lists, metavar="ID", help="end before this token"
    )
    parser.add_argument(
        "--bad-word", type=text, **lists, metavar="TEXT", help="never write TEXT; may be repeated"
    )
    parser.add_argument("--min-tokens", type=natural, default=0, metavar="N", help="end after N")
    parser.add_argument("--ignore-eos", action="store_true", help="continue past end tokens")


def _add_formats(parser: argparse.ArgumentParser) -> None:
    """Add what the text must follow."""
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="write a JSON object")
    formats.add_argument(
        "--json-schema", metavar="FILE", help="write JSON that follows the schema in FILE"
    )
    formats.add_argument("--regex", type=text, help="write what this regular expression matches")
    formats.add_argument(
        "--choice", type=text, action="append", metavar="TEXT", help="write TEXT or another choice"
    )
    formats.add_argument("--grammar", metavar="FILE", help="follow the Lark grammar in FILE")


def execute(options: argparse.Namespace) -> int:
    """Print the continuation; the memory it takes and its speed go to standard error."""
    for name in ("system", "template"):
        if getattr(options, name) is not None and not options.chat:
            raise ValueError(f"--{name} is for a chat: give --chat as well")
    given = given_sampling(options)
    response_format = _response_format(options)
    prompt = input_text(options.prompt, "prompt")
    model = open_model(options)
    chosen: Options = {
        "max_tokens": options.tokens,
        "sampling": sampling(options, given, model),
        "stop": options.stop,
        "stop_token_ids": options.stop_token_id,
        "min_tokens": options.min_tokens,
        "bad_words": options.bad_word,
        "ignore_eos": options.ignore_eos,
        "speculate": options.speculate,
        "response_format": response_format,
        "logprobs": options.logprobs,
        "prompt_logprobs": options.prompt_logprobs,
        "n": options.texts,
    }
    ids = _prompt(model, prompt, options)
    if options.chat:
        chosen = model._chat_options(chosen)
    if options.texts == 1:
        return _print_stream(model, model.stream(ids, **chosen))
    result = model.generate(ids, **chosen)
    print("\n---\n".join(choice.text for choice in result.choices), flush=True)
    for choice in result.choices:
        _report(model, choice, choice.finish_reason)
    return 0


def _prompt(model: "Model", prompt: str, options: argparse.Namespace) -> list[int]:
    """The ids that are continued."""
    if not options.chat:
        return model.tokenize(prompt)
    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    return model.apply_chat_template(messages, template=options.template)


def _print_stream(model: "Model", stream: "TextStream") -> int:
    """Print a text as it comes, until its end or Ctrl-C."""
    code = 0
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    print(flush=True)
    result = stream.result
    _report(model, result, result.finish_reason if code == 0 else "Ctrl-C")
    return code


def _report(model: "Model", result: "Generation", reason: str) -> None:
    """Tell what was asked of a text, and how fast it was."""
    for token in (*(result.prompt_logprobs or ()), *(result.logprobs or ())):
        if token is not None:  # nothing comes before the first token of a prompt
            others = "".join(f"  {logprob:.3f} {_quoted(model, id)}" for id, logprob in token.top)
            print(f"{token.logprob:8.3f} {_quoted(model, token.id):20}{others}", file=sys.stderr)
    print(f"{_speeds(result.timings)}; ended by {reason}", file=sys.stderr)


def _quoted(model: "Model", id: int) -> str:
    return repr(model.tokenizer.piece(id).decode(errors="replace"))


def _response_format(options: argparse.Namespace) -> Any:
    """What the text must follow; None if it is free."""
    if options.json_schema is not None:
        return _read_schema(options.json_schema)
    if options.json:
        return "json"
    if options.regex is not None:
        from bitnet_lut.text.grammar import Regex

        return Regex(options.regex)
    if options.grammar is not None:
        from bitnet_lut.text.grammar import Lark

        return Lark(text_file(options.grammar))
    return options.choice


def _read_schema(file: str) -> Any:
    """The JSON schema in *file*."""
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
