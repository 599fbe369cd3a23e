"""Chats as token ids: the model's own template, or a default, and control tokens.

A template decides where control tokens go. What the messages spell is text, even where it looks
like a control token: it is hidden from the template behind characters that no message uses, and
encoded as text.
"""

import os
import re
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from reprlib import repr as quote
from typing import TYPE_CHECKING, Any, Self

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import read_text
from bitnet_lut.formats.safetensors import read_json
from bitnet_lut.text.default_templates import DEFAULTS, DefaultTemplate
from bitnet_lut.text.messages import Message, check_messages, plain
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bitnet_lut.text.sandbox import BoundedTemplate

__all__ = ["ChatTemplates", "folder_sources", "gguf_sources"]

_LARGEST_FILE = 2**20  # bytes of a template's file
_PRIVATE = range(0xF0000, 0xFFFFE)  # characters that no text has a common use for


class ChatTemplates:
    """The chat templates of a model, and how chats become ids. Threads may share one.

    names: of the model's own templates, "default" among them in most cases; empty for a model
        that brings none.
    """

    def __init__(
        self, tokenizer: Tokenizer, sources: Mapping[str, str], architecture: str, *, name: str
    ) -> None:
        """Take the *sources* of the templates, by name; `from_gguf` and `from_folder` find them.

        architecture: decides, with the vocabulary, what stands in for a missing template.
        name: the file, for errors.
        """
        self._tokenizer = tokenizer
        self._sources = dict(sources)
        self._architecture = architecture
        self._file = name
        self._compiled: dict[str, BoundedTemplate] = {}
        self._controls: re.Pattern[str] | None = None
        self._standin: DefaultTemplate | None = None
        self.names = tuple(sources)

    @classmethod
    def from_gguf(
        cls,
        tokenizer: Tokenizer,
        metadata: Mapping[str, object],
        architecture: str,
        *,
        name: str,
    ) -> Self:
        """Find ``tokenizer.chat_template`` and ``tokenizer.chat_template.NAME`` of a GGUF file.

        Raises FormatError for one that is not a text.
        """
        return cls(tokenizer, gguf_sources(metadata, name), architecture, name=name)

    @classmethod
    def from_folder(
        cls, tokenizer: Tokenizer, path: str | os.PathLike[str], architecture: str
    ) -> Self:
        """Find the templates of a Hugging Face folder.

        Read are tokenizer_config.json (one text, or a list of named ones), and before it
        chat_template.jinja and additional_chat_templates/NAME.jinja.
        Raises FormatError for one that is not a text.
        """
        return cls(tokenizer, folder_sources(Path(path)), architecture, name=os.fspath(path))

    @property
    def sources(self) -> Mapping[str, str]:
        """The texts of the model's own templates, by name."""
        return self._sources

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer, for a model that has no token to end it with."""
        return () if self._sources else self._default().stop

    @property
    def carries_tools(self) -> bool:
        """Whether a template tells the model of the functions that it may call."""
        return any("tools" in source for source in self._sources.values())

    def source(self, name: str) -> str | None:
        """The text of the model's own template of that name; None if it has none."""
        return self._sources.get(name)

    def render(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> str:
        """The text of a chat. For a model use `encode`: the text does not tell which control
        tokens the template wrote and which a message spells.

        Arguments and errors are those of `encode`.
        """
        checked = check_messages(messages)
        return self._render(checked, add_generation_prompt, template, tools, variables)

    def encode(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
        trust_content: bool = False,
    ) -> list[int]:
        """The ids of a chat, with BOS once if the model wants one.

        messages: see `Message`. add_generation_prompt: open the assistant's answer at the end.
        template: the name of one of `names`; None takes "tool_use" where there are *tools* and
            such a template, and "default" else.
        tools: descriptions of functions, for templates that know of them.
        variables: others that the template uses, such as ``{"enable_thinking": False}``.
        trust_content: let messages spell control tokens, as transformers does. Leave it off for
            text of users, who could end their message with it and speak as the system.
        Raises ValueError for messages that are malformed or that the template refuses, FormatError
        if the template is broken, and ImportError without jinja2.
        """
        checked = check_messages(messages)
        hidden = {} if trust_content else self._hide(checked, tools)
        checked, tools = self._replaced([checked, tools], hidden)
        text = self._render(checked, add_generation_prompt, template, tools, variables)
        ids = self._ids(text, hidden)
        bos = self._tokenizer.bos_id
        if self._tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def encode_after(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        answer: int,
        *,
        template: str | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> list[int] | None:
        """The ids that follow the content of ``messages[answer]`` in a chat, to the next answer.

        A model's own answer is best kept as the ids it wrote: its text, rendered and encoded again,
        may give others. None if the template does not show the answer just once. Other arguments
        and errors are those of `encode`.
        """
        checked = check_messages(messages)
        checked[answer]["content"] = ""
        hidden = self._hide(checked, None)
        (mark,) = self._unused(checked, 1, but=hidden)
        (checked,) = self._replaced([checked], hidden)
        checked[answer]["content"] = chr(mark)
        text = self._render(checked, True, template, None, variables)
        _, *rest = text.split(chr(mark))
        if len(rest) != 1:
            return None
        ids = self._ids(rest[0], hidden)
        # SentencePiece puts a space before every text, and this one is the middle of a chat.
        if ids and self._tokenizer.piece(ids[0]) == b" " and not rest[0].startswith(" "):
            del ids[0]
        return ids

    def _render(
        self,
        messages: list[Any],
        add_generation_prompt: bool,
        name: str | None,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, object] | None,
    ) -> str:
        ends = {
            key: "" if id is None else self._tokenizer.token_text(id)
            for key, id in (
                ("bos_token", self._tokenizer.bos_id),
                ("eos_token", self._tokenizer.eos_id),
            )
        }
        context = {**ends, **(plain(variables, "variables") if variables else {})}
        context["messages"] = messages
        context["tools"] = plain(tools, "tools") if tools else None
        context["add_generation_prompt"] = add_generation_prompt
        return self._template(name, bool(tools)).render(context)

    def _template(self, name: str | None, tools: bool) -> "BoundedTemplate":
        """The compiled template of that name."""
        from bitnet_lut.text.sandbox import BoundedTemplate

        if name is None:
            name = "tool_use" if tools and "tool_use" in self._sources else "default"
            if name not in self._sources and len(self._sources) == 1:
                (name,) = self._sources
        if name not in self._compiled:
            if name in self._sources:
                source, where = self._sources[name], f"{self._file}: chat template {name!r}"
            elif self._sources or name != "default":
                known = ", ".join(self._sources) or "none"
                raise ValueError(f"no chat template {name!r}: this model has {known}")
            else:
                standin = self._default()
                warnings.warn(
                    f"{self._file} has no chat template: using that of {standin.name}",
                    stacklevel=5,
                )
                source, where = standin.source, f"the chat template of {standin.name}"
            self._compiled[name] = BoundedTemplate(source, where)
        return self._compiled[name]

    def _default(self) -> DefaultTemplate:
        """What stands in for a missing template."""
        if self._standin is None:
            known = {self._tokenizer.token_text(id) for id in self._tokenizer.special_ids}
            self._standin = next(
                default
                for default in DEFAULTS
                if known.issuperset(default.needs)
                and (not default.architectures or self._architecture in default.architectures)
            )
        return self._standin

    def _control_pattern(self) -> re.Pattern[str]:
        """Finds what spells a control token, the longest where several begin."""
        if self._controls is None:
            texts = {self._tokenizer.token_text(id) for id in self._tokenizer.special_ids}
            longest_first = sorted(filter(None, texts), key=len, reverse=True)
            self._controls = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        return self._controls

    def _hide(self, messages: list[Any], tools: object) -> dict[int, str]:
        """What the messages spell of control tokens, each under a character that nobody uses."""
        find = self._control_pattern().findall
        spelled = sorted({token for text in _texts([messages, tools]) for token in find(text)})
        return dict(zip(self._unused([messages, tools], len(spelled)), spelled, strict=True))

    def _unused(self, messages: object, count: int, but: Container[int] = ()) -> list[int]:
        """That many characters that neither messages nor templates use, and none of *but*."""
        if not count:
            return []
        used = {*map(ord, "".join([*_texts(messages), *self._sources.values()]))}
        free = (c for c in _PRIVATE if c not in used and c not in but)
        found = list(islice(free, count))
        if len(found) < count:
            raise ValueError("the messages use every character of the private planes")
        return found

    def _replaced(self, values: list[Any], hidden: Mapping[int, str]) -> list[Any]:
        """The *values* with control tokens behind the characters that hide them."""
        if not hidden:
            return values
        spelled = {text: chr(character) for character, text in hidden.items()}
        hide = self._control_pattern()
        changed: list[Any] = _map_texts(
            values, lambda text: hide.sub(lambda match: spelled[match[0]], text)
        )
        return changed

    def _ids(self, text: str, hidden: Mapping[int, str]) -> list[int]:
        """The ids of a rendered text, without BOS unless the text spells it."""
        ids: list[int] = []
        for piece, special in self._pieces(text, hidden):
            ids += self._tokenizer.encode(piece, add_bos=False, add_eos=False, special=special)
        return ids

    def _pieces(self, text: str, hidden: Mapping[int, str]) -> Iterator[tuple[str, bool]]:
        """Cut *text* where control tokens end what must be taken literally; and whether not."""
        if not hidden:
            yield text, True
            return
        held = ""
        for piece in re.split(f"({self._control_pattern().pattern})", text):
            literal = piece.translate(hidden)
            if literal == piece:
                held += piece
                continue
            if held:
                yield held, True
                held = ""
            yield literal, False
        if held:
            yield held, True


def _texts(value: object) -> Iterator[str]:
    """All texts in something like JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, Sequence):
        for entry in value:
            yield from _texts(entry)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of something like JSON with every text changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): _map_texts(entry, change) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_map_texts(entry, change) for entry in value]
    return value


def gguf_sources(metadata: Mapping[str, object], name: str) -> dict[str, str]:
    """The texts of the templates of a GGUF file, by name; *name* is that of the file, for errors.

    Raises FormatError for one that is not a text.
    """
    sources = {}
    for key, value in metadata.items():
        if key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template."):
            if not isinstance(value, str):
                raise FormatError(f"{name}: {key} is {quote(value)}, not a text")
            sources[key.removeprefix("tokenizer.chat_template").lstrip(".") or "default"] = value
    return sources


def folder_sources(folder: Path) -> dict[str, str]:
    """The texts of the templates of a Hugging Face folder, by name; raises FormatError."""
    sources = _config_sources(folder / "tokenizer_config.json")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        sources[file.stem] = read_text(file, _LARGEST_FILE)
    if (folder / "chat_template.jinja").is_file():
        sources["default"] = read_text(folder / "chat_template.jinja", _LARGEST_FILE)
    return sources


def _config_sources(file: Path) -> dict[str, str]:
    """The templates in tokenizer_config.json."""
    try:
        stated = read_json(file).get("chat_template")
    except FileNotFoundError:
        return {}
    if stated is None:
        return {}
    if isinstance(stated, str):
        return {"default": stated}
    sources = {}
    for entry in stated if isinstance(stated, list) else [stated]:
        name = entry.get("name") if isinstance(entry, dict) else None
        source = entry.get("template") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(source, str):
            raise FormatError(f"{file}: chat_template is {quote(stated)}, not a text or named ones")
        sources[name] = source
    return sources
