"""``bitnet-lut chat`` talks with a model in the terminal."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_lut.cli.generating import (
    add_model_options,
    add_sampling,
    given_sampling,
    open_model,
    sampling,
)
from bitnet_lut.cli.options import positive, text

if TYPE_CHECKING:
    from bitnet_lut import Answer, Conversation, Model, Sampling

SUMMARY = "talk with a model"
EXAMPLE = 'bitnet-lut chat -m model.gguf --system "Answer in one sentence."'

_PROMPT, _MORE = "> ", ". "
_WARMTH = 0.7  # the temperature of a second try, where the first one was greedy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``chat``."""
    add_model_options(parser)
    parser.add_argument("--system", type=text, metavar="TEXT", help="what the model is told first")
    parser.add_argument("--resume", metavar="FILE", help="go on with a chat that /save wrote")
    parser.add_argument("-n", "--tokens", type=positive, default=1024, help="most in an answer")
    add_sampling(parser)


def execute(options: argparse.Namespace) -> int:
    """Talk until the input ends."""
    given = given_sampling(options)
    if options.resume and options.system is not None:
        raise ValueError("--system cannot change a chat that --resume goes on with")
    model = open_model(options)
    chat = Chat(model, sampling(options, given, model), options.tokens)
    if options.resume:
        chat.load(options.resume)
    elif options.system is not None:
        chat.system(options.system)
    with _editing(chat.commands):
        chat.run()
    return 0


class Chat:
    """One talk: reads lines, runs commands, prints answers."""

    def __init__(self, model: "Model", sampling: "Sampling", tokens: int) -> None:
        """Begin with an empty conversation; answers have at most *tokens* tokens."""
        self._model, self._sampling, self._tokens = model, sampling, tokens
        self._conversation: Conversation = model.conversation(sampling=sampling, max_tokens=tokens)
        self._answer: Answer | None = None
        self._tries = 0
        self.commands: dict[str, tuple[Callable[[str], None], str]] = {
            "/help": (self.help, "show this list"),
            "/system": (self.system, "TEXT: tell the model something first; the chat starts again"),
            "/regen": (self.regenerate, "have the last answer written again, with another seed"),
            "/edit": (self.edit, "TEXT: say this in place of what you said last"),
            "/undo": (self.undo, "forget your last message and its answer"),
            "/save": (self.save, "FILE: write the chat, for --resume or /load"),
            "/load": (self.load, "FILE: go on with a chat that was saved"),
            "/stats": (self.stats, "show the speed of the last answer and the size of the chat"),
            "/quit": (self.quit, "leave; so does Ctrl-D"),
        }

    def run(self) -> None:
        """Answer every message until the input ends."""
        if sys.stdin.isatty():
            print("Ctrl-C stops an answer, /help lists the commands, /quit leaves.")
        while True:
            try:
                message = _read_message()
                if message is None:
                    return
                self._act(message)
            except KeyboardInterrupt:
                print("\n(Ctrl-D or /quit leaves)")
            except _Quit:
                return

    def _act(self, message: str) -> None:
        """Run a command, or say *message* to the model."""
        name, _, rest = message.partition(" ")
        if not message.strip():
            return
        if message.startswith("//") or not message.startswith("/"):
            self._tries = 0
            self._try(lambda: self._print(self._conversation.say(message.removeprefix("/"))))
        elif name in self.commands:
            command, _ = self.commands[name]
            self._try(lambda: command(rest.strip()))
        else:
            _note(f"{name} is no command: /help lists them, // begins a message with a slash")

    def _try(self, action: Callable[[], None]) -> None:
        """Do something; an error is printed, and the chat goes on."""
        from bitnet_lut.errors import NumericsError

        try:
            action()
        except OSError as error:
            _note(f"error: {error.filename or 'file'}: {error.strerror or error}")
        except (ValueError, MemoryError, NumericsError) as error:
            _note(f"error: {' '.join(str(error).split())}")

    def _print(self, answer: "Answer") -> None:
        """Print an answer as it comes; Ctrl-C ends it and keeps what has come."""
        self._answer = answer
        try:
            for piece in answer:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            answer.close()
            print(" (stopped)", end="")
        print(flush=True)

    def help(self, _: str) -> None:
        """List the commands."""
        for name, (_command, what) in self.commands.items():
            print(f"{name:8} {what}")
        print("A line that ends in \\ goes on in the next one.")

    def system(self, rest: str) -> None:
        """Change the system prompt and start again."""
        self._conversation.set_system(rest or None)
        if sys.stdin.isatty():
            _note("a new chat")

    def regenerate(self, _: str) -> None:
        """Write the last answer again."""
        if not self._has_turns():
            return
        self._tries += 1
        sampling = replace(
            self._sampling,
            temperature=self._sampling.temperature or _WARMTH,
            seed=(self._sampling.seed or 0) + self._tries,
        )
        self._print(self._conversation.regenerate(sampling=sampling))

    def edit(self, rest: str) -> None:
        """Say something else in place of the last message."""
        if not self._has_turns():
            return
        if not rest:
            _note("/edit TEXT: the text is missing")
            return
        self._print(self._conversation.edit(-1, rest))

    def undo(self, _: str) -> None:
        """Forget the last turn."""
        if self._has_turns():
            self._conversation.undo()
            _note(f"forgotten; turns that are left: {len(self._conversation.turns)}")

    def save(self, rest: str) -> None:
        """Write the chat to a file."""
        if not rest:
            raise ValueError("/save FILE: the name of the file is missing")
        path = Path(rest).expanduser()
        self._conversation.save(path)
        _note(f"saved to {path}")

    def load(self, rest: str) -> None:
        """Go on with a chat from a file."""
        from bitnet_lut import Conversation

        if not rest:
            raise ValueError("/load FILE: the name of the file is missing")
        self._conversation = Conversation.load(
            self._model, Path(rest).expanduser(), sampling=self._sampling, max_tokens=self._tokens
        )
        for turn in self._conversation.turns:
            print(f"{_PROMPT}{turn.user}\n{turn.answer}")

    def stats(self, _: str) -> None:
        """Show speeds and sizes."""
        if self._answer is not None:
            timings = self._answer.result.timings
            print(
                f"prompt: {timings.prompt_tokens - timings.reused_tokens} new tokens, "
                f"{timings.prompt_tokens_per_second:.1f} tokens/s; answer: "
                f"{timings.generated_tokens} tokens, "
                f"{timings.generation_tokens_per_second:.1f} tokens/s"
            )
        print(repr(self._conversation).strip("<>"))

    def quit(self, _: str) -> None:
        """Leave."""
        raise _Quit

    def _has_turns(self) -> bool:
        if not self._conversation.turns:
            _note("nothing was said yet")
        return bool(self._conversation.turns)


class _Quit(Exception):
    """The user wants to leave."""


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _read_message() -> str | None:
    r"""A message: a line, and those after it while they end in \. None at the end of the input."""
    shown = sys.stdin.isatty()
    lines: list[str] = []
    try:
        while True:
            lines.append(input((_MORE if lines else _PROMPT) if shown else ""))
            if not lines[-1].endswith("\\"):
                break
            lines[-1] = lines[-1][:-1]
    except EOFError:
        if not lines:
            if shown:
                print()
            return None
    return "\n".join(lines)


@contextmanager
def _editing(words: Iterable[str]) -> Iterator[None]:
    """Lines can be edited, earlier ones come back with the arrow keys, Tab completes commands."""
    try:
        import readline
    except ImportError:  # Windows has its own editing
        yield
        return

    def complete(start: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(start)]
        if len(found) == 1:
            found[0] += " "  # so that its text can follow at once
        return found[state] if state < len(found) else None

    before = readline.get_completer()
    delimiters = readline.get_completer_delims()
    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_completer_delims(delimiters)
