"""``bitnet-lut chat``: its commands, in a pipe and in a terminal; and chats and JSON of ``run``."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from bitnet_lut import Model, Sampling
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL

pytest.importorskip("jinja2")

COMMAND = [sys.executable, "-m", "bitnet_lut"]
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model():
    return Model(MODEL)


def talk(*lines, options=(), code=0):
    """What a chat with these lines prints: (standard output, standard error)."""
    said = subprocess.run(
        [*COMMAND, "chat", "-m", str(MODEL), "-n", "30", *map(str, options)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == code, said.stderr
    weights, *rest = said.stderr.splitlines()
    assert weights.startswith("weights ") or code
    return said.stdout.splitlines(), rest if not code else [weights, *rest]


def answers(model, *texts, system=None, **options):
    chat = model.conversation(system=system, max_tokens=30, **options)
    return [chat.say(text).text for text in texts]


def test_messages_are_answered(model):
    out, err = talk("Hello", "", "What is 2 + 3?")
    assert out == answers(model, "Hello", "What is 2 + 3?")
    assert err == []


def test_system_sampling_and_lines_that_go_on(model):
    options = ["--system", "Be brief.", "--temperature", "0.9", "--seed", "7"]
    out, _ = talk("Tell me \\", "a story", "//etc", options=options)
    warm = {"system": "Be brief.", "sampling": Sampling(temperature=0.9, seed=7)}
    assert out == answers(model, "Tell me \na story", "/etc", **warm)


def test_commands(model, tmp_path):
    file = tmp_path / "chat"
    first, second = answers(model, "Hello", "And Spain?")
    out, err = talk("Hello", "And Spain?", "/undo", "And Spain?", f"/save {file}", "/quit", "Hello")
    assert out == [first, second, second]
    assert err == ["forgotten; turns that are left: 1", f"saved to {file}"]
    # The chat goes on where it was, after --resume and after /load.
    third = answers(model, "Hello", "And Spain?", "Hello")[2]
    shown = ["> Hello", first, "> And Spain?", second]
    assert talk("Hello", options=["--resume", file]) == ([*shown, third], [])
    assert talk(f"/load {file}", "Hello") == ([*shown, third], [])
    out, _ = talk("Hello", "/edit And Spain?")
    assert out == [first, *answers(model, "And Spain?")]
    out, err = talk("Hello", "/system Be brief.", "Hello")
    assert out == [first, *answers(model, "Hello", system="Be brief.")]


def test_a_second_try_has_another_seed(model):
    out, _ = talk("Hello", "/regen", "/regen", options=["--temperature", "0.8", "--seed", "5"])
    seeds = [Sampling(temperature=0.8, seed=seed) for seed in (5, 6, 7)]
    assert out == [answers(model, "Hello", sampling=one)[0] for one in seeds]
    out, _ = talk("Hello", "/regen")
    warm = answers(model, "Hello", sampling=Sampling(temperature=0.7, seed=1))
    assert out == [*answers(model, "Hello"), *warm]


def test_help_and_stats():
    out, _ = talk("/help")
    assert [line.split()[0] for line in out[:9]] == [
        "/help",
        "/system",
        "/regen",
        "/edit",
        "/undo",
        "/save",
        "/load",
        "/stats",
        "/quit",
    ]
    out, _ = talk("Hello", "/stats")
    assert "new tokens" in out[1]
    assert "tokens/s" in out[1]
    assert out[2].startswith("Conversation of 1 turns: ")


def test_mistakes_are_told_and_the_chat_goes_on(model, tmp_path):
    (tmp_path / "other").write_text("x")
    out, err = talk(
        "/foo",
        "/undo",
        "/regen",
        "/edit x",
        "/save",
        "/load",
        f"/load {tmp_path / 'none'}",
        f"/load {tmp_path / 'other'}",
        f"/save {tmp_path / 'none' / 'x'}",
        "Hello",
        "/edit",
        "/stats",
    )
    assert out[0] == answers(model, "Hello")[0]
    assert err == [
        "/foo is no command: /help lists them, // begins a message with a slash",
        *["nothing was said yet"] * 3,
        "error: /save FILE: the name of the file is missing",
        "error: /load FILE: the name of the file is missing",
        f"error: {tmp_path / 'none'}: No such file or directory",
        f"error: {tmp_path / 'other'}: not a saved session or conversation",
        f"error: {tmp_path / 'none'}: there is no such folder",
        "/edit TEXT: the text is missing",
    ]


def test_options_that_do_not_go_together(tmp_path):
    talk("/save " + str(tmp_path / "chat"))
    both = ["--resume", tmp_path / "chat", "--system", "x"]
    _, err = talk(options=both, code=2)
    assert "--system cannot change a chat" in err[-1]


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments):
        import pty

        self.child, self.terminal = pty.fork()
        if self.child == 0:
            os.environ["TERM"] = "dumb"
            os.execv(sys.executable, [*COMMAND, *map(str, arguments)])
        self.seen = ""

    def wait_for(self, text, start=0):
        """Read until *text* is on the screen after *start*; the place behind it."""
        end = time.monotonic() + 60
        while (at := self.seen.find(text, start)) < 0:
            assert time.monotonic() < end, f"{text!r} never came: {self.seen!r}"
            self.read()
        return at + len(text)

    def wait_for_more(self, count):
        """Read until so many more characters are on the screen."""
        wanted, end = len(self.seen) + count, time.monotonic() + 60
        while len(self.seen) < wanted:
            assert time.monotonic() < end, f"no {count} more characters came: {self.seen!r}"
            self.read()

    def read(self):
        if select.select([self.terminal], [], [], 1)[0]:
            try:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")
            except OSError:  # the child has closed it
                pytest.fail(f"the command ended: {self.seen!r}")

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def exit_code(self):
        while select.select([self.terminal], [], [], 10)[0]:
            try:
                if not os.read(self.terminal, 4096):
                    break
            except OSError:
                break
        end = time.monotonic() + 30
        while (found := os.waitpid(self.child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.kill(self.child, signal.SIGKILL)
                os.waitpid(self.child, 0)
                pytest.fail(f"the command did not end: {self.seen!r}")
            time.sleep(0.01)
        status = found[1]
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_a_terminal():
    terminal = Terminal("chat", "-m", MODEL, "-n", "30")
    at = terminal.wait_for("> ")
    terminal.type("Hello\n")
    at = terminal.wait_for("\n> ", at)
    assert "Hello!" in terminal.seen
    terminal.type("\x1b[A\n")  # the line before, from the history
    at = terminal.wait_for("\n> ", at)
    assert terminal.seen.count("What do you want to know?") == 2
    terminal.type("some text")
    at = terminal.wait_for("some text", at)
    time.sleep(0.1)  # Python notices a signal only while readline waits for keys
    terminal.type("\x03")  # Ctrl-C drops a line
    at = terminal.wait_for("(Ctrl-D or /quit leaves)", at)
    at = terminal.wait_for("> ", at)
    terminal.type("/un\t\n")  # Tab completes a command
    at = terminal.wait_for("turns that are left: 1", at)
    terminal.wait_for("> ", at)
    terminal.type("/sys\tBe brief.\n")  # and puts a space after it
    at = terminal.wait_for("a new chat", at)
    terminal.wait_for("> ", at)
    terminal.type("\x04")
    assert terminal.exit_code() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_every_command_in_a_terminal(model, tmp_path, monkeypatch):
    """The steps of docs/chat.md."""
    monkeypatch.setenv("HOME", str(tmp_path))
    first, second = answers(model, "What is the capital of France?", "And of \nSpain?")
    terminal = Terminal("chat", "-m", MODEL, "-n", "30")
    at = terminal.wait_for("> ")
    for keys, shown in (
        ("What is the capital of France?\n", first),
        ("And of \\\n", "\n. "),
        ("Spain?\n", second),
        ("/stats\n", "Conversation of 2 turns: "),
        ("/regen\n", "\n> "),
        ("/edit What is 2 + 3?\n", "2 + 3 = 5."),
        ("/undo\n", "turns that are left: 1"),
        ("\x1b[A\x1b[A\n", "2 + 3 = 5."),  # the line before the last
        ("/save ~/my.chat\n", f"saved to {tmp_path / 'my.chat'}"),
        ("/system Be brief.\n", "a new chat"),
        ("Hello\n", answers(model, "Hello", system="Be brief.")[0]),
        ("/load ~/my.chat\n", "2 + 3 = 5."),
        ("/help\n", "goes on in the next one."),
    ):
        terminal.type(keys)
        at = terminal.wait_for(shown, at)
        if shown not in ("\n. ", "\n> "):
            at = terminal.wait_for("> ", at)
    terminal.type("/quit\n")
    assert terminal.exit_code() == 0
    assert (tmp_path / "my.chat").stat().st_mode & 0o777 == 0o600
    terminal = Terminal("chat", "-m", MODEL, "--resume", tmp_path / "my.chat")
    at = terminal.wait_for("2 + 3 = 5.")
    terminal.wait_for("> ", at)
    terminal.type("\x04")
    assert terminal.exit_code() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such terminals")
def test_ctrl_c_stops_an_answer_and_keeps_the_chat():
    # So hot that it writes nonsense until it is stopped, and slow enough to stop it.
    options = ["-n", 500, "--temperature", 9, "--seed", 1, "--isa", "scalar", "--threads", 1]
    terminal = Terminal("chat", "-m", MODEL, *options)
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    at = terminal.wait_for("Hello\r\n")
    terminal.wait_for_more(20)
    terminal.type("\x03")
    at = terminal.wait_for("(stopped)", at)
    at = terminal.wait_for("> ", at)
    terminal.type("/stats\n")
    at = terminal.wait_for("Conversation of 1 turns", at)
    terminal.wait_for("> ", at)
    terminal.type("/quit\n")
    assert terminal.exit_code() == 0


# run


def test_run_answers_a_chat(model, capsys):
    assert main(["run", "-m", str(MODEL), "-n", "30", "--chat", "Hello"]) == 0
    assert capsys.readouterr().out == model.chat(HELLO, max_tokens=30).text + "\n"
    system = ["--system", "Be brief."]
    assert main(["run", "-m", str(MODEL), "-n", "30", "--chat", *system, "Hello"]) == 0
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    assert capsys.readouterr().out == model.chat(messages, max_tokens=30).text + "\n"
    assert main(["run", "-m", str(MODEL), *system, "Hello"]) == 2
    assert "--system is for a chat" in capsys.readouterr().err


def test_run_writes_json(capsys, tmp_path):
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    run = ["run", "-m", str(MODEL), "--json-schema", str(file), "Hello"]
    assert main(run) == 0
    assert json.loads(capsys.readouterr().out)["a"] in (1, 2)


def test_run_lists_log_probabilities(model, capsys):
    run = ["run", "-m", str(MODEL), "-n", "4", "--logprobs", "2", "The capital of France is"]
    assert main(run) == 0
    text, listed = capsys.readouterr()
    out = model.generate(run[-1], max_tokens=4, logprobs=2)
    assert text == out.text + "\n"
    lines = listed.splitlines()[1:-1]
    assert len(lines) == len(out.ids)
    for line, token in zip(lines, out.logprobs, strict=True):
        assert float(line.split()[0]) == pytest.approx(token.logprob, abs=1e-3)
        assert line.count(repr(model.tokenizer.piece(token.id).decode())) == 2


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "schema.json: not JSON"),
        ("[1]", "schema.json: a schema is an object"),
        ('{"type": "strin"}', "Invalid type: strin"),
        ('"' + "x" * 2**20, "more than 1048576 bytes"),
    ],
)
def test_files_without_a_schema(capsys, tmp_path, content, match):
    pytest.importorskip("llguidance")
    file = tmp_path / "schema.json"
    file.write_text(content)
    assert main(["run", "-m", str(MODEL), "--json-schema", str(file), "Hello"]) == 2
    assert match in capsys.readouterr().err


# completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bitnet-lut ", {"run", "chat", "convert", "inspect"}),
        ("bitnet-lut ch", {"chat "}),
        ("bitnet-lut chat --sy", {"--system "}),
        ("bitnet-lut run --json-", {"--json-schema "}),
        ("bitnet-lut run --kv ", {"f16", "f32"}),
    ],
)
def test_a_shell_completes_commands_and_options(tmp_path, line, expected):
    pytest.importorskip("argcomplete")
    found = tmp_path / "found"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(found),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    subprocess.run(COMMAND, env=environment, check=True, timeout=60)
    assert {*found.read_text().split("\n")} >= expected
