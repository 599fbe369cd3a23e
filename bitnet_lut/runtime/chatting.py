"""What a model does with chats; `Model` inherits it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from bitnet_lut.runtime.arguments import stop_strings
from bitnet_lut.runtime.generating import Generating
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.options import Options
from bitnet_lut.runtime.stream import TextStream
from bitnet_lut.text.messages import Message

if TYPE_CHECKING:  # these are loaded when they are needed
    from bitnet_lut.runtime.conversation import Conversation
    from bitnet_lut.text.chat import ChatTemplates

__all__ = ["TEMPLATE_KEY", "Chatting", "TextPlace"]

TEMPLATE_KEY = "tokenizer.chat_template"  # begins the keys of GGUF files that hold templates
Messages = Sequence[Message] | Sequence[Mapping[str, Any]]


class TextPlace(NamedTuple):
    """Where a model's chat templates are: in a folder, or in the metadata of a GGUF file."""

    name: str
    folder: Path | None
    metadata: Mapping[str, object]


class Chatting(Generating):
    """Chats with a model: messages in, messages out. Needs jinja2: ``bitnet_lut[chat]``."""

    _text_place: TextPlace

    @cached_property
    def chat_templates(self) -> "ChatTemplates":
        """The templates that turn messages into ids.

        They are read when they are first needed: FormatError if they are damaged.
        """
        from bitnet_lut.text.chat import ChatTemplates

        name, folder, metadata = self._text_place
        architecture = self.config.architecture
        if folder is None:
            return ChatTemplates.from_gguf(self.tokenizer, metadata, architecture, name=name)
        return ChatTemplates.from_folder(self.tokenizer, folder, architecture)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """The ids of a chat, BOS included once; see `ChatTemplates.encode`.

        messages: as in the OpenAI API: ``[{"role": "user", "content": "Hello"}]``.
        """
        return self.chat_templates.encode(
            messages,
            add_generation_prompt=add_generation_prompt,
            template=template,
            tools=tools,
            variables=variables,
        )

    def chat(
        self,
        messages: Messages,
        *,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Write the next message of a chat.

        messages, template, tools, variables: see `ChatTemplates.encode`. options: see `generate`.
        The text is that of the ids which `apply_chat_template` gives. Raises what those two raise.
        """
        ids = self.chat_templates.encode(
            messages, template=template, tools=tools, variables=variables
        )
        return self.generate(ids, **self._chat_options(options))

    def chat_stream(
        self,
        messages: Messages,
        *,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
        **options: Unpack[Options],
    ) -> TextStream:
        """Write the next message of a chat piece by piece; see `chat` and `stream`."""
        ids = self.chat_templates.encode(
            messages, template=template, tools=tools, variables=variables
        )
        return self.stream(ids, **self._chat_options(options))

    def conversation(
        self, *, system: str | None = None, **options: Unpack[Options]
    ) -> "Conversation":
        """Start a chat that goes on turn by turn, each of which runs only what is new.

        system: what the model is told first. options: those of `generate`, for every answer.
        Raises MemoryError if there is no room for a cache of the whole context.
        """
        from bitnet_lut.runtime.conversation import Conversation

        return Conversation(self, system=system, **options)

    def count_tokens(self, prompt: str | Messages) -> int:
        """How many tokens a text, or a chat with the beginning of its answer, takes."""
        if isinstance(prompt, str):
            return len(self.tokenizer.encode(prompt))
        return len(self.apply_chat_template(prompt))

    def _chat_options(self, options: Options) -> Options:
        """The options of `generate`, with what ends an answer where no token does."""
        stop = (*self.chat_templates.stop, *stop_strings(options.get("stop", ())))
        return {**options, "stop": stop}
