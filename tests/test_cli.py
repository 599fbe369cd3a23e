import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import COMMAND, call
from golden_data import GOLDEN

from bitnet_lut import __version__, cpu_info
from bitnet_lut.cli import main
from bitnet_lut.convert.synth import SHAPES, synthesize
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter

MALFORMED = sorted((GOLDEN / "malformed").glob("*.gguf"))
TL2_TILES = ["512x256=256,96,32", "128x256=128,192,32", "256x512=128,96,32"]
TL2_TILES += ["768x256=384,96,32", "256x768=256,192,32"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "tiny.gguf"
    synthesize(path, "tiny")
    return path


def oddities(capsys, *arguments: object) -> str:
    assert main(["inspect", *map(str, arguments)]) == 0
    return capsys.readouterr().out.partition("odd about this file\n")[2]


def rewrite(source: Path, target: Path, metadata=None, tensors=None, name=lambda name: name):
    """Copy a file with some metadata and the first bytes of some tensors replaced."""
    with GGUFFile(source) as file:
        infos = file.tensors.values()
        entries = [(name(t.name), t.shape, t.type_id, t.span) for t in infos]
        with GGUFWriter(target, {**file.metadata, **(metadata or {})}, entries) as writer:
            for info in infos:
                data = bytearray(file.data(info.name, info.span))
                start = (tensors or {}).get(info.name, b"")
                data[: len(start)] = start
                writer.write(name(info.name), data)


# run


@pytest.mark.parametrize(
    ("folder", "file", "options"),
    [
        ("bitnet-b1.58", "model-i2_s.gguf", []),
        ("bitnet-b1.58", "hf-packed", []),
        ("llama-1.58", "model-i2_s.gguf", []),
        ("llama-1.58", "model-tl2-id39.gguf", [f"--tiles={tile}" for tile in TL2_TILES]),
    ],
)
def test_run_prints_the_greedy_continuation_of_the_reference(golden, folder, file, options):
    greedy = json.loads((golden / folder / "reference.json").read_text())["greedy"]
    done = call(
        "run", "-m", golden / folder / file, "-n", 32, "--kv=f32", *options, greedy["prompt"]
    )
    assert done.returncode == 0
    assert done.stdout.decode().replace(os.linesep, "\n") == greedy["text"] + "\n"
    memory, speeds = done.stderr.decode().splitlines()
    assert re.match(r"weights [\d.]+ MB \([\d.]+ MB of it mapped\).* KV cache .* scratch", memory)
    assert re.match(
        r"prompt: \d+ tokens, [\d.]+ tokens/s; first token after [\d.]+ s; "
        r"generation: 32 tokens, [\d.]+ tokens/s; ended by length",
        speeds,
    )


def test_run_samples_by_seed(tiny):
    sampling = ["--temperature=1.5", "--top-k=50", "--top-p=0.95", "--min-p=0.01"]
    sampling += ["--repetition-penalty=1.1", "--ignore-eos"]
    outputs = [
        call("run", "-m", tiny, "-n", 20, *sampling, f"--seed={seed}", "The").stdout
        for seed in (1, 1, 2)
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_run_stops_at_a_text(tiny, capsys):
    assert main(["run", "-m", str(tiny), "-n", "12", "The"]) == 0
    text = capsys.readouterr().out
    assert main(["run", "-m", str(tiny), "-n", "12", "The", "--stop", text[3:5]]) == 0
    said = capsys.readouterr()
    assert said.out.rstrip("\n") == text[: text.index(text[3:5])]
    assert "ended by stop" in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_ends_a_run_and_prints_speeds(tiny, tmp_path):
    rewrite(tiny, tmp_path / "long.gguf", {"bitnet-b1.58.context_length": 10**6})
    run = ["run", "-m", str(tmp_path / "long.gguf"), "-n", "90000", "--context=99999"]
    with subprocess.Popen(
        [*COMMAND, *run, "--ignore-eos", "The"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert out.endswith(b"\n")
    assert err.splitlines()[-1].endswith(b"; ended by Ctrl-C")
    assert b"Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently on Windows")
def test_a_closed_pipe_ends_quietly(tiny):
    with subprocess.Popen(
        [*COMMAND, "run", "-m", str(tiny), "-n", "500", "--ignore-eos", "The"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        child.stdout.close()
        err = child.stderr.read()
    assert child.returncode == 141
    assert b"Traceback" not in err
    assert b"rror" not in err


PROMPT = "The capital of France is"


@pytest.mark.parametrize("arguments", [["-"], []], ids=["dash", "nothing"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=repr)
def test_run_reads_the_prompt_from_standard_input(arguments, end):
    done = call("run", "-n", 3, *arguments, given=(PROMPT + end).encode())
    assert (done.returncode, done.stdout.split()) == (0, [b"Paris."])


@pytest.mark.parametrize(
    ("given", "expected"),
    [(b"", b"no prompt: standard input is empty"), (b"a\xff", b"is not UTF-8 text at byte 1")],
)
def test_standard_input_without_a_prompt_is_refused(given, expected):
    done = call("run", "-", given=given)
    assert (done.returncode, done.stdout) == (2, b"")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locale")
@pytest.mark.parametrize("utf8", ["0", "1"])
def test_prompts_beyond_ascii_need_no_locale(tiny, utf8):
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
    text = "naïve é 日"
    expected = call("tokenize", tiny, text).stdout
    assert call("tokenize", tiny, text, env=environment).stdout == expected
    assert call("tokenize", tiny, "-", given=text.encode(), env=environment).stdout == expected
    done = call("run", "-m", tiny, "-n", 2, text, env=environment)
    assert (done.returncode, done.stderr.count(b"rror")) == (0, 0)


@pytest.mark.skipif(os.name != "posix", reason="arguments are bytes on POSIX only")
def test_an_argument_that_is_not_utf_8_is_refused(tiny):
    done = subprocess.run([*COMMAND, "tokenize", str(tiny), b"a\xff"], capture_output=True)
    assert done.returncode == 2
    assert b"is not UTF-8 text" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# inspect


def test_inspect_shows_the_parts(tiny, capsys):
    assert main(["inspect", str(tiny)]) == 0
    shown = capsys.readouterr().out
    for pattern in [
        r"tiny\.gguf: GGUF version 3, [\d,]+ bytes",
        r"tokenizer\.ggml\.tokens +512 elements: '!', '\"', ",
        r"\n  activation +relu2\n",
        r"BOS +502 '<\|begin_of_text\|>', added to a text",
        r"blk\.0\.attn_k\.weight +128 x 256 +i2_s +8,224 +2\.01",
        r"\n  q6_k +1 +107,520 +6\.56\n",
        r"blk\.1\.ffn_down\.weight +0\.0625 +2\d\.\d% +[45]\d\.\d% +2\d\.\d%",
        r"odd about this file\n  - nothing\n$",
    ]:
        assert re.search(pattern, shown), pattern


@pytest.mark.parametrize("kind", ["hf-packed", "hf-master-bf16"])
def test_inspect_reads_folders(golden, capsys, kind):
    assert oddities(capsys, golden / "bitnet-b1.58" / kind) == "  - nothing\n"
    main(["inspect", str(golden / "bitnet-b1.58" / kind)])
    shown = capsys.readouterr().out
    assert "model.layers.0.self_attn.q_proj.weight" in shown
    assert re.search(r"blk\.0\.attn_q\.weight +0\.100\d+ +34\.4% +31\.0% +34\.6%", shown)


@pytest.mark.parametrize("path", MALFORMED, ids=[path.stem for path in MALFORMED])
def test_inspect_survives_damaged_files(path, capsys):
    if main(["inspect", str(path)]) == 2:
        said = capsys.readouterr()
        assert said.out == ""
        assert re.fullmatch(r"bitnet-lut: error: .+\n", said.err)
    else:
        odd = capsys.readouterr().out.partition("odd about this file\n")[2]
        assert ("nothing" in odd) == (path.stem == "base")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tokenizers/llama-bpe-pre-missing.gguf", r"ggml\.pre is missing: 'llama-bpe' is used"),
        ("malformed/i2s_code_3.gguf", r"code 3 .*blk\.0\.attn_q"),
        ("malformed/nan_scale.gguf", r"scale nan .*blk\.0\.attn_q"),
        ("malformed/missing_tensor.gguf", "cannot be run: .*ffn_sub_norm.* missing"),
        ("malformed/bos_out_of_range.gguf", "vocabulary cannot be used: .*100000"),
        ("embedding-qwen3/model-i2_s.gguf", "cannot be run: .*qwen3"),
    ],
)
def test_inspect_tells_what_is_odd(golden, capsys, file, expected):
    assert re.search(expected, oddities(capsys, golden / file))


def test_inspect_decides_what_type_39_is(golden, capsys):
    path = golden / "llama-1.58" / "model-tl2-id39.gguf"
    odd = oddities(capsys, path, *(f"--tiles={tile}" for tile in TL2_TILES))
    assert re.fullmatch(r"  - type id 39 of .* and 10 more is TL2 .*: TL2 by its size\n", odd)
    assert re.search(r"128x256 are not .* blk\.0\.attn_k\.weight", oddities(capsys, path))


ZEROS = {"blk.0.attn_q.weight": b"\x55" * (256 * 256 // 4)}
BIG_SCALE = {"blk.0.attn_k.weight": bytes(128 * 256 // 4) + np.float32(40).tobytes()}


@pytest.mark.parametrize(
    ("metadata", "tensors", "expected"),
    [
        ({}, ZEROS, r"nothing but zeros: blk\.0\.attn_q\.weight$"),
        ({}, BIG_SCALE, r"look like their inverse: blk\.0\.attn_k\.weight$"),
        ({}, {"output_norm.weight": np.float32(np.nan).tobytes()}, "NaN or inf.*: output_norm"),
        ({"bitnet-b1.58.vocab_size": 500}, {}, "vocab_size is 500, but there are 512 tokens"),
        ({"tokenizer.ggml.token_type": np.ones(512, np.int32)}, {}, r"normal ones: <\|begin_of"),
    ],
)
def test_inspect_tells_what_is_odd_about_rewritten_files(
    tiny, tmp_path, capsys, metadata, tensors, expected
):
    rewrite(tiny, tmp_path / "odd.gguf", metadata, tensors)
    assert re.search(expected, oddities(capsys, tmp_path / "odd.gguf"), re.MULTILINE)


def test_inspect_tells_repeated_tokens(tiny, tmp_path, capsys):
    with GGUFFile(tiny) as file:
        tokens = list(file.metadata["tokenizer.ggml.tokens"])
    tokens[511] = tokens[502]
    rewrite(tiny, tmp_path / "odd.gguf", {"tokenizer.ggml.tokens": tokens})
    odd = oddities(capsys, tmp_path / "odd.gguf")
    assert re.search(r"more than once: '<\|begin_of_text\|>'", odd)


def test_inspect_knows_the_old_name_of_the_architecture(tiny, tmp_path, capsys):
    with GGUFFile(tiny) as file:
        prefix = "bitnet-b1.58"
        renamed = {
            key.replace(prefix, "bitnet-25"): value
            for key, value in file.metadata.items()
            if key.startswith(prefix)
        }
    rewrite(tiny, tmp_path / "old.gguf", {**renamed, "general.architecture": "bitnet-25"})
    assert "old name bitnet-25" in oddities(capsys, tmp_path / "old.gguf")


def test_inspect_shows_no_control_characters(tiny, tmp_path, capsys):
    rewrite(tiny, tmp_path / "odd.gguf", name=lambda name: name.replace("output", "\x1b[2Joutput"))
    main(["inspect", str(tmp_path / "odd.gguf")])
    assert "\x1b" not in capsys.readouterr().out


# tokenize


def test_tokenize_there_and_back(golden, capsys):
    file = str(golden / "tokenizers" / "llama-bpe.gguf")
    text = "naïve text, 日本 <|end_of_text|>"
    assert main(["tokenize", file, text]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["752", "'<|begin_of_text|>'"]
    assert ["753", "'<|end_of_text|>'"] in lines
    assert main(["tokenize", "--ids", file, ", ".join(id for id, _ in lines[1:])]) == 0
    assert capsys.readouterr().out == text + "\n"


def test_tokenize_shows_parts_of_characters_as_bytes(tiny, capsys):
    assert main(["tokenize", str(tiny), "é"]) == 0
    assert capsys.readouterr().out.split()[2:] == ["127", r"b'\xc3'", "102", r"b'\xa9'"]


def test_tokenize_reads_folders_and_takes_a_pre_tokenizer(golden, capsys):
    assert main(["tokenize", str(golden / "bitnet-b1.58" / "hf-packed"), "a b"]) == 0
    folder = capsys.readouterr().out
    assert main(["tokenize", str(golden / "bitnet-b1.58" / "model-i2_s.gguf"), "a b"]) == 0
    assert capsys.readouterr().out == folder
    file = str(golden / "tokenizers" / "llama-bpe-pre-missing.gguf")
    assert main(["tokenize", file, "I'M (foo)", "--pre-tokenizer=default"]) == 0
    default = capsys.readouterr().out
    assert main(["tokenize", file, "I'M (foo)"]) == 0
    assert capsys.readouterr().out != default


# synth, info and the rest


def test_synth_writes_a_model(tiny, tmp_path):
    done = call("synth", "--shape=tiny", "--type=i2_s", "--head=q6_k", "-o", tmp_path / "a.gguf")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "a.gguf").read_bytes() == tiny.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals on Windows")
def test_progress_shows_on_a_terminal_only_and_after_a_second():
    import pty
    import termios

    script = (
        "import time; from bitnet_lut.cli.options import progress_bar\n"
        "with progress_bar('B') as progress:\n"
        "    for i in range(4): progress(i, 4); time.sleep(0.4)"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", script], stderr=theirs, timeout=60, check=True)
    shown = os.read(ours, 10000)
    assert shown.startswith(b"\r 75%")
    os.close(theirs)
    os.close(ours)
    silent = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert silent.stderr == b""


def test_info_tells_what_is_used(capsys):
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    info = cpu_info()
    assert re.search(rf"^isa +{info.isa}: {re.escape(info.reason)}$", shown, re.MULTILINE)
    assert re.search(rf"^threads +{info.threads}$", shown, re.MULTILINE)
    assert re.search(r"^tier +scalar: usable$", shown, re.MULTILINE)


def test_version_and_help():
    assert call("--version").stdout.decode().split() == ["bitnet-lut", __version__]
    shown = call("synth", "--help").stdout.decode()
    assert all(shape in shown for shape in SHAPES)


def test_inspect_checks_the_hash_that_a_conversion_wrote(tiny, tmp_path, capsys):
    converted, damaged = tmp_path / "converted.gguf", tmp_path / "damaged.gguf"
    assert main(["convert", str(tiny), "-o", str(converted), "--type", "tq2_0"]) == 0
    with GGUFFile(converted) as file:
        stated = file.metadata["bitnet_lut.ternary_sha256"]
    capsys.readouterr()
    assert main(["inspect", str(converted)]) == 0
    assert f"SHA-256, the same in every format: {stated}" in capsys.readouterr().out
    assert "hash" not in oddities(capsys, converted)
    rewrite(converted, damaged, tensors={"blk.0.attn_q.weight": bytes([0x55])})
    assert "do not have the hash that its conversion wrote" in oddities(capsys, damaged)
