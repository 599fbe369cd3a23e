"""The command line, bitnet-lut: every command reads its options and calls the library."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from bitnet_lut import __version__, convert, cpu_info
from bitnet_lut.bench.engine import bench
from bitnet_lut.bench.report import report as report_bench
from bitnet_lut.checkpoint import hub, open_checkpoint
from bitnet_lut.convert.report import report as report_conversion
from bitnet_lut.convert.synth import HEADS, SHAPES, TYPES, synthesize
from bitnet_lut.convert.vocabulary import NAMED_PRE_TOKENIZERS
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import inspect_model
from bitnet_lut.diagnose.report import report
from bitnet_lut.errors import NumericsError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.kernels import bench as kernel_bench
from bitnet_lut.kernels import report as kernel_report
from bitnet_lut.kernels import tune
from bitnet_lut.kernels.proof import Fault
from bitnet_lut.model import Model
from bitnet_lut.runtime.cpu import choose_isa, default_threads
from bitnet_lut.runtime.generate import Timings
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.text.tokenizer import Tokenizer
from bitnet_lut.text.vocabulary import PRE_TOKENIZERS

_SAMPLING = {option.name: option.default for option in fields(Sampling)}
_FAILURE, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141  # the last two as a shell reports the signals


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as all errors are."""

    def error(self, message: str) -> NoReturn:
        self.exit(_FAILURE, f"bitnet-lut: error: {message} (try {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):  # a model may write what the terminal cannot
        sys.stdout.reconfigure(errors="replace")
    try:
        code: int = options.command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (OSError, ValueError, MemoryError, ImportError, NumericsError) as error:
        print(f"bitnet-lut: error: {_one_line(error)}", file=sys.stderr)
        return _FAILURE
    return code


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _run(options: argparse.Namespace) -> int:
    if options.model is None:
        print("no -m: using the small demonstration model inside the package", file=sys.stderr)
        options.model = str(MODEL)
    with _progress("B") as progress:
        model = Model(
            options.model,
            threads=options.threads,
            kernel=options.kernel,
            isa=options.isa,
            context=options.context,
            kv=options.kv,
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            pre_tokenizer=options.pre_tokenizer,
            progress=progress,
        )
    print(model.info, file=sys.stderr, flush=True)  # before the cache is allocated
    stream = model.stream(
        options.prompt,
        max_tokens=options.tokens,
        sampling=Sampling(**{name: getattr(options, name) for name in _SAMPLING}),
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        speculate=options.speculate,
    )
    code = 0
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    print(flush=True)
    result = stream.result
    reason = result.finish_reason if code == 0 else "Ctrl-C"
    print(f"{_speeds(result.timings)}; ended by {reason}", file=sys.stderr)
    return code


def _speeds(timings: Timings) -> str:
    if not timings.prompt_seconds:
        return f"prompt: {timings.prompt_tokens} tokens, not finished"
    return (
        f"prompt: {timings.prompt_tokens} tokens, {timings.prompt_tokens_per_second:.1f} tokens/s; "
        f"first token after {timings.time_to_first_token:.2f} s; "
        f"generation: {timings.generated_tokens} tokens, "
        f"{timings.generation_tokens_per_second:.1f} tokens/s"
    )


def _inspect(options: argparse.Namespace) -> int:
    with _progress("tensors") as progress:
        inspection = inspect_model(
            _local(options.file),
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            progress=progress,
        )
    for line in report(inspection):
        print(line)
    return 0


def _convert(options: argparse.Namespace) -> int:
    template = options.chat_template
    with _progress("B") as progress:
        conversion = convert.convert(
            _local(options.source),
            options.output,
            type=options.type,
            head=options.head,
            pre_tokenizer=options.pre_tokenizer,
            chat_template=None if template is None else template.read_text(encoding="utf-8"),
            activation=options.activation,
            architecture=options.arch,
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            progress=progress,
        )
    for line in report_conversion(conversion):
        print(line)
    for warning in conversion.warnings:
        print(f"bitnet-lut: warning: {warning}", file=sys.stderr)
    return 0


def _tokenize(options: argparse.Namespace) -> int:
    path = _local(options.file)
    if path.is_dir():
        tokenizer = Tokenizer.from_folder(path)
    else:
        with GGUFFile(path) as file:
            tokenizer = Tokenizer.from_gguf(
                file.metadata, name=file.name, pre=options.pre_tokenizer
            )
    if options.ids:
        print(tokenizer.decode([int(id) for id in re.split(r"[\s,]+", options.text.strip())]))
        return 0
    for id in tokenizer.encode(options.text):
        piece = tokenizer.piece(id)
        try:
            shown = repr(piece.decode())
        except UnicodeDecodeError:
            shown = repr(piece)
        print(f"{id:>7}  {shown}")
    return 0


def _synth(options: argparse.Namespace) -> int:
    with _progress("B") as progress:
        synthesize(
            options.output,
            options.shape,
            type=options.type,
            head=options.head,
            seed=options.seed,
            progress=progress,
        )
    return 0


def _bench(options: argparse.Namespace) -> int:
    with _progress("rounds") as progress:
        found = bench(
            _local(options.model),
            threads=options.threads,
            prompt=options.prompt,
            generate=options.generate,
            position=options.position,
            rounds=options.rounds,
            isa=options.isa,
            kernel=options.kernel,
            profiled=options.profile,
            progress=progress,
        )
    if options.json:
        print(json.dumps(found.as_json(), indent=1))
        return 0
    for line in report_bench(found):
        print(line)
    return 0


def _kernels(options: argparse.Namespace) -> int:
    kernel_report.load(options.load)
    for line in kernel_report.list_kernels():
        print(line)
    return 0


def _kernels_test(options: argparse.Namespace) -> int:
    kernel_report.load(options.load)
    for kernel in kernel_report.chosen(options.name, options.isa):
        try:
            print(kernel_report.prove_kernel(kernel), flush=True)
        except Fault as fault:
            print(f"bitnet-lut: error: {fault}", file=sys.stderr)
            return 1
    return 0


def _kernels_bench(options: argparse.Namespace) -> int:
    kernel_report.load(options.load)
    kernels = kernel_report.chosen(options.name, options.isa)
    if options.name is not None:
        against = None if options.against == "all" else options.against
        others = kernel_report.chosen(against, options.isa)
        kernels += [one for one in others if one.name not in options.name.split(",")]
    with _progress("figures") as progress:
        figures = kernel_bench.bench(
            kernels,
            kernel_bench.matrix_shapes(options.shape),
            tokens=options.tokens,
            threads=options.threads,
            progress=progress,
        )
    for line in kernel_report.report_bench(figures):
        print(line)
    if options.plot is not None:
        picture = kernel_bench.roofline(figures, f"Kernels, {options.shape}")
        options.plot.write_text(picture, encoding="utf-8")
    return 0


def _tune(options: argparse.Namespace) -> int:
    if options.model is None:
        config = SHAPES["2b-4t"].config
    else:
        with open_checkpoint(_local(options.model)) as checkpoint:
            config = checkpoint.config
    with _progress("groups") as progress:
        tuning = tune.measure(config, choose_isa(options.isa), options.threads, progress=progress)
    for line in kernel_report.report_tuning(tuning):
        print(line)
    path = tune.remember(tuning)
    if path is not None:
        print(f"kept in {path}")
    return 0


def _info(options: argparse.Namespace) -> int:
    info = cpu_info()
    print(f"bitnet_lut {__version__}")
    print(f"isa      {info.isa}: {info.reason}")
    print(f"threads  {info.threads}")
    print(f"features {' '.join(info.features) or 'none'}")
    for tier, verdict in info.tiers.items():
        print(f"tier     {tier}: {verdict}")
    return 0


def _local(source: str) -> Path:
    return hub.download(source) if hub.is_repo_id(source) else Path(source)


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal after a second; none where the output goes elsewhere."""
    with tqdm(disable=None, delay=1, unit=unit, unit_scale=True, leave=False) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bitnet-lut", description="Ternary (BitNet b1.58) models on CPUs.")
    parser.add_argument("--version", action="version", version=f"bitnet-lut {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    source = "GGUF file, folder or Hugging Face repo id"

    run = _command(commands, "run", _run, "continue a prompt")
    run.add_argument(
        "-m", "--model", metavar="FILE", help=f"{source}; default: the demonstration model inside"
    )
    run.add_argument("prompt")
    run.add_argument("-n", "--tokens", type=_positive, default=256, help="most to generate")
    run.add_argument("--stop", action="append", default=[], metavar="TEXT", help="ends the text")
    run.add_argument("--ignore-eos", action="store_true", help="run on past end tokens")
    run.add_argument(
        "--no-speculate",
        dest="speculate",
        action="store_false",
        help="never check guessed tokens several in a step; the text is the same",
    )
    run.add_argument("--threads", type=_positive, help="default: the cores there are")
    run.add_argument("--context", type=_positive, help="positions to reserve memory for")
    run.add_argument("--kv", choices=("f16", "f32"), default="f16", help="type of the KV cache")
    run.add_argument("--isa", default="auto", help="tier of instruction sets, see info")
    run.add_argument("--kernel", default="auto", help="kernel of the ternary layers")
    for name, default in _SAMPLING.items():
        flag = f"--{name.replace('_', '-')}"
        kind = int if name in ("top_k", "seed") else float
        run.add_argument(flag, type=kind, default=default, help=f"default {default}")
    _add_reading_options(run)
    _add_pre_tokenizer(run)

    inspect = _command(commands, "inspect", _inspect, "show what a file holds, and what is odd")
    inspect.add_argument("file", help=source)
    _add_reading_options(inspect)

    convert_ = _command(commands, "convert", _convert, "write a model in another format")
    convert_.add_argument("source", help=f"{source}, or torch state dict beside its config.json")
    convert_.add_argument("-o", "--output", required=True, metavar="FILE", help="or a new folder")
    convert_.add_argument(
        "--type",
        choices=convert.TARGETS,
        default="i2_s",
        help="of linear layers; hf is a packed folder for transformers; default i2_s",
    )
    convert_.add_argument(
        "--head", choices=convert.HEADS, help="of embedding and output; default: as they are"
    )
    repairs = convert_.add_argument_group("repairs")
    repairs.add_argument("--pre-tokenizer", choices=NAMED_PRE_TOKENIZERS, help="how words are cut")
    repairs.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja template")
    repairs.add_argument("--activation", choices=("silu", "relu2"), help="of the feed-forward part")
    repairs.add_argument("--arch", choices=convert.ARCHITECTURES, help="in place of an old name")
    _add_reading_options(convert_)

    tokenize = _command(commands, "tokenize", _tokenize, "show the ids and pieces of a text")
    tokenize.add_argument("file", help=source)
    tokenize.add_argument("text")
    tokenize.add_argument("--ids", action="store_true", help="the text is ids to decode: '1, 2, 3'")
    _add_pre_tokenizer(tokenize)

    synth = _command(commands, "synth", _synth, "write a model with random weights")
    synth.add_argument("--shape", choices=SHAPES, default="2b-4t", help="the model to resemble")
    synth.add_argument("--type", choices=TYPES, default="i2_s", help="of linear layers")
    synth.add_argument("--head", choices=HEADS, default="q6_k", help="of embedding and output")
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("-o", "--output", required=True, metavar="FILE")

    bench_ = _command(commands, "bench", _bench, "measure the speed of a model on this machine")
    bench_.add_argument("-m", "--model", required=True, metavar="FILE", help=source)
    bench_.add_argument(
        "--threads", type=_numbers, default=[default_threads()], help="such as 1,2; default: all"
    )
    bench_.add_argument("--prompt", type=_numbers, default=[128, 512], help="tokens; none: ''")
    bench_.add_argument("--generate", type=_numbers, default=[64], help="tokens; none: ''")
    bench_.add_argument(
        "--position", type=_natural, default=0, help="tokens in the cache before generation"
    )
    bench_.add_argument("--rounds", type=_positive, default=5, help="default 5")
    bench_.add_argument("--isa", default="auto", help="tier of instruction sets, see info")
    bench_.add_argument("--kernel", default="auto", help="kernel of the ternary layers")
    bench_.add_argument("--profile", action="store_true", help="show the time by part of the model")
    bench_.add_argument("--json", action="store_true", help="print everything as JSON")

    _add_kernels(commands)

    tune_ = _command(commands, "tune", _tune, "measure which kernels are fastest for a model")
    tune_.add_argument("-m", "--model", metavar="FILE", help=f"{source}; default: the 2B-4T shape")
    tune_.add_argument("--isa", default="auto", help="tier of instruction sets, see info")
    tune_.add_argument(
        "--threads", type=_positive, default=default_threads(), help="default: the cores there are"
    )

    _command(commands, "info", _info, "show what this machine can do and what is used")
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    command: Callable[[argparse.Namespace], int],
    summary: str,
) -> _Parser:
    parser = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    parser.set_defaults(command=command)
    return parser


def _add_kernels(commands: "argparse._SubParsersAction[_Parser]") -> None:
    kernels = _command(commands, "kernels", _kernels, "list the ternary kernels and their tiers")
    nested: argparse._SubParsersAction[_Parser] = kernels.add_subparsers(metavar="test | bench")
    test = _command(nested, "test", _kernels_test, "prove that kernels are right")
    bench = _command(nested, "bench", _kernels_bench, "measure kernels beside the machine's roofs")
    for parser in (kernels, test, bench):
        parser.add_argument(
            "--load",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="Python that registers kernels; may be repeated",
        )
    for parser, isa in ((test, "all"), (bench, "auto")):
        parser.add_argument("name", nargs="?", help="such as i2_s, or i2_s,tl5; default: all")
        parser.add_argument(
            "--isa", default=isa, help=f"tiers with commas, auto or all; default {isa}"
        )
    bench.add_argument("--against", default="all", metavar="NAMES", help="default: all others")
    bench.add_argument(
        "--shape", default="2b-4t", help="ROWSxCOLS, or a model's, as synth has them"
    )
    bench.add_argument("--tokens", type=_numbers, default=[1, 4, 128], help="default 1,4,128")
    bench.add_argument("--threads", type=_positive, default=1, help="default 1")
    bench.add_argument("--plot", type=Path, metavar="FILE", help="write a roofline picture, SVG")


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--i2-s-layout",
        choices=("128x32", "64x16", "1x4", "sequential"),
        default="128x32",
        help="of I2_S tensors, which no file tells; default 128x32, that of published files",
    )
    parser.add_argument(
        "--tiles",
        type=_tile,
        action="append",
        default=[],
        metavar="ROWSxCOLS=BM,BK,bm",
        help="of TL1 and TL2 tensors of one shape, which no file tells; may be repeated",
    )


def _add_pre_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pre-tokenizer",
        choices=("auto", *PRE_TOKENIZERS),
        default="auto",
        help="in place of the file's; 'default' for bitnet.cpp's ids of the official 2B file",
    )


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _natural(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _numbers(text: str) -> list[int]:
    return [_positive(number) for number in text.split(",")] if text else []


def _tile(text: str) -> tuple[Shape, Tile]:
    match = re.fullmatch(r"(\d+)x(\d+)=(\d+),(\d+),(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form ROWSxCOLS=BM,BK,bm")
    rows, cols, *tile = map(int, match.groups())
    return (rows, cols), (tile[0], tile[1], tile[2])
