"""What clients send and get: the OpenAI API, and what other servers have added to it.

A field that is not known is refused, never ignored. Fields of OpenAI that cannot matter here (user,
metadata, store, service_tier ...) are accepted where their value asks for nothing.
"""

from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "ChatAnswer",
    "ChatChoice",
    "ChatChunk",
    "ChatDelta",
    "ChatRequest",
    "ChunkChoice",
    "CompletionAnswer",
    "CompletionChoice",
    "CompletionRequest",
    "Detokenize",
    "ErrorAnswer",
    "ErrorDetails",
    "Generating",
    "ModelCard",
    "ModelList",
    "PromptDetails",
    "Tokenize",
    "Tokens",
    "Usage",
    "decode",
    "encode",
]

_MOST_PROMPTS = 128

_Request = TypeVar("_Request", bound=Struct)

Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Text: TypeAlias = Annotated[str, Meta(max_length=2**22)]
StopText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Ids: TypeAlias = Annotated[list[Count], Meta(max_length=2**20)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    """include_usage: end the stream with the numbers of tokens."""

    include_usage: bool = False
    include_obfuscation: bool = False


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """A format as vLLM's clients ask for it: one of these fields."""

    json: dict[str, Any] | str | None = None
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=1024)] | None = None
    grammar: Text | None = None


class Generating(Struct, kw_only=True, forbid_unknown_fields=True):
    """What chats and completions share."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=4096)] | None = None
    user: str | None = None
    # Other servers' names for what OpenAI's API lacks.
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    repetition_penalty: float | None = None
    penalty_window: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Annotated[list[StopText], Meta(max_length=64)] | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    order: Literal["llama.cpp", "transformers"] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Count], Meta(max_length=1024)] | None = None
    bad_words: Annotated[list[StopText], Meta(max_length=1024)] | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None


class CompletionRequest(Generating, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/completions."""

    # A text, ids, or several of either; `prompts` tells which.
    prompt: Text | Annotated[list[Text | Count | Ids], Meta(max_length=2**20)]
    max_tokens: Count | None = None
    logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, a text or ids. ValueError if they are of several kinds, or too many."""
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if given and all(isinstance(one, int) for one in given):
            return [cast("list[int]", given)]
        kinds = {type(one) for one in given}
        if kinds not in ({str}, {list}) or len(given) > _MOST_PROMPTS:
            raise ValueError(
                f"prompt must be a text, a list of ids, or a list of 1 to {_MOST_PROMPTS} texts or "
                "of as many lists of ids"
            )
        return cast("list[str | list[int]]", given)


class ChatRequest(Generating, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=4096)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=128)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Fields of OpenAI that ask for nothing here.
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    modalities: list[Literal["text"]] | None = None


class Tokenize(Struct, forbid_unknown_fields=True):
    """The body of /tokenize: a text (prompt or content), or messages."""

    prompt: Text | None = None
    content: Text | None = None
    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    model: str | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True


class Detokenize(Struct, forbid_unknown_fields=True):
    """The body of /detokenize."""

    tokens: Ids
    model: str | None = None


class Tokens(Struct):
    """The answer of /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class ErrorDetails(Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Struct):
    """Every answer with a status of 400 or more."""

    error: ErrorDetails


class PromptDetails(Struct):
    """cached_tokens: whose keys and values were there already."""

    cached_tokens: int


class Usage(Struct):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CompletionChoice(Struct):
    """One text of a completion, or a piece of it."""

    text: str
    index: int
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class CompletionAnswer(Struct):
    """The answer of /v1/completions, and each event of its stream."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | None | UnsetType = UNSET


class ChatMessage(Struct):
    """What the model answers."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class ChatChoice(Struct):
    """One answer of a chat."""

    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatAnswer(Struct):
    """The answer of /v1/chat/completions."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"


class ChatDelta(Struct):
    """A piece of an answer."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET


class ChunkChoice(Struct):
    """A piece of one answer of a chat."""

    index: int
    delta: ChatDelta
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class ChatChunk(Struct):
    """An event of the stream of a chat."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | None | UnsetType = UNSET


class ModelCard(Struct):
    """A model, as /v1/models lists it."""

    id: str
    created: int
    max_model_len: int
    object: Literal["model"] = "model"
    owned_by: str = "bitnet_lut"


class ModelList(Struct):
    """The answer of /v1/models."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


def encode(answer: Struct) -> bytes:
    """An answer as JSON."""
    return msgspec.json.encode(answer)


def decode(body: bytes, kind: type[_Request]) -> _Request:
    """A request of a *kind* from JSON; ValueError, which names the field, if it is not one."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("the body is nested too deep") from None
