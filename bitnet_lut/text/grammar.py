"""Structured output: text that must follow a JSON schema, a regex, a list of choices or a grammar.

The library llguidance says which tokens may come next. A `Grammars` belongs to one tokenizer and
keeps what it has compiled; a `Grammar` is one compiled format; a `Constraint` is one text that
follows it.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as quote
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import GrammarError
from bitnet_lut.text import typed
from bitnet_lut.text.guard import guarded
from bitnet_lut.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

__all__ = ["Constraint", "Grammar", "Grammars", "Lark", "Regex", "ResponseFormat"]

_LONGEST = 2**20  # characters of a schema, regex or grammar
# Over a constant that is about the least of 64-bit integers llguidance 1.9 ends the process.
_DEADLY = re.compile(r"-9223372036854775\d{3}(?!\d)")
_CACHED = 2**22  # characters of all grammars that are kept compiled
_TOO_COMPLEX = "the response format became too complex to follow"
_FORCED = 256  # most tokens that are forced at once
_LIMITS = {"max_lexer_states": 50_000, "max_grammar_size": 200_000, "verbose_errors": False}
# Small models that may write spaces between the tokens of JSON write them for ever.
_JSON_OPTIONS = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}


@dataclass(frozen=True)
class Regex:
    """A response format: all of the text matches *pattern*, a regex without look-around."""

    pattern: str


@dataclass(frozen=True)
class Lark:
    """A response format: a context-free *grammar* in llguidance's dialect of Lark.

    >>> Lark('start: "yes" | "no" ", because " /[a-z ]+/ "."')
    """

    grammar: str


ResponseFormat: TypeAlias = (
    Mapping[str, Any] | str | Regex | Lark | re.Pattern[str] | Sequence[str] | type | Any
)


class Grammars:
    """Compiles response formats for one tokenizer. Threads may share one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Compile for *tokenizer*; nothing is prepared before the first format."""
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._vocabulary: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, llguidance.LLMatcher] = OrderedDict()
        self._size = 0

    def compile(self, response_format: ResponseFormat) -> "Grammar":
        """Compile a response format.

        response_format: one of
            a JSON schema, as a dict;
            "json", any JSON object;
            a `Regex`, or a pattern that `re.compile` made;
            a list of texts, of which the answer is one;
            a `Lark` grammar;
            a type: a dataclass, a TypedDict, an enum, ``list[int]`` and others, see `schema_of`;
            OpenAI's ``{"type": "json_object"}`` and ``{"type": "json_schema", ...}``.
        Raises GrammarError, with the reason, for a format that is malformed, too large or cannot be
        guaranteed, such as a JSON schema with a keyword that is not supported; TypeError for
        something that is not a format; and ImportError without llguidance.
        """
        guide = _import()
        with guarded("the response format cannot be followed", GrammarError):
            source, parse = _source(guide, response_format)
        if len(source) > _LONGEST:
            raise GrammarError(f"the grammar has {len(source)} characters, at most {_LONGEST} fit")
        if _DEADLY.search(source):
            raise GrammarError("integers within a thousand of -2^63 are not supported")
        with self._lock:
            if source in self._compiled:
                self._compiled.move_to_end(source)
            else:
                self._keep(source, self._compile(guide, source))
            return Grammar(self._compiled[source], self._tokenizer, parse)

    def _compile(self, guide: Any, source: str) -> "llguidance.LLMatcher":
        limits = guide.LLParserLimits(**_LIMITS)
        with guarded("the response format cannot be followed", GrammarError):
            if self._vocabulary is None:
                self._vocabulary = _vocabulary(guide, self._tokenizer)
            matcher: llguidance.LLMatcher = guide.LLMatcher(
                self._vocabulary, source, log_level=0, limits=limits
            )
            if not matcher.is_error():
                trial = matcher.deep_copy()
                trial.compute_bitmask()
                if trial.is_stopped() and not trial.is_accepting():
                    reason = trial.get_error() or "no text matches it"
                    raise GrammarError(f"the response format cannot be followed: {_brief(reason)}")
        problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
        if problems:
            raise GrammarError(f"the response format cannot be followed: {_brief(problems[0])}")
        return matcher

    def _keep(self, source: str, matcher: "llguidance.LLMatcher") -> None:
        self._compiled[source] = matcher
        self._size += len(source)
        while self._size > _CACHED and len(self._compiled) > 1:
            dropped, _ = self._compiled.popitem(last=False)
            self._size -= len(dropped)


class Grammar:
    """A compiled response format, for any number of texts."""

    def __init__(
        self,
        matcher: "llguidance.LLMatcher",
        tokenizer: Tokenizer,
        parse: Callable[[str], Any],
    ) -> None:
        """`Grammars.compile` makes one."""
        self._matcher, self._tokenizer, self._parse = matcher, tokenizer, parse

    def start(self) -> "Constraint":
        """Begin a text."""
        return Constraint(self._matcher.deep_copy(), self._tokenizer)

    def parse(self, text: str) -> Any:
        """The value of a whole *text* that follows the format.

        JSON is read; where the format is a type, the value is one of that type. The value of a
        regex, a choice and a Lark grammar is the text itself.
        """
        return self._parse(text)


class Constraint:
    """Says what may come next in one text. Use it from one thread.

    ended: whether an end was accepted, after which nothing may come.
    """

    def __init__(self, matcher: "llguidance.LLMatcher", tokenizer: Tokenizer) -> None:
        """`Grammar.start` makes one."""
        self._matcher, self._tokenizer = matcher, tokenizer
        self.ended = False  # an end has come

    @property
    def complete(self) -> bool:
        """Whether the text follows the format if it ends here."""
        return not self._matcher.is_error() and self._matcher.is_accepting()

    def allowed(self) -> NDArray[np.bool_]:
        """Which ids may come next, bool (vocab_size,). The ends are among them where it may end.

        Raises GrammarError if the library's limits are reached, which a very ambiguous grammar can
        do in the middle of a text.
        """
        with guarded(_TOO_COMPLEX, GrammarError):
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, bitorder="little", count=self._tokenizer.vocab_size)
        return mask.view(np.bool_)

    def forced(self) -> list[int]:
        """The ids that must come next, before there is anything to choose; often none.

        Where nothing but the end may come, that is an end.
        """
        if self._matcher.is_stopped():
            self._check()
            return [] if self._tokenizer.eos_id is None else [self._tokenizer.eos_id]
        with guarded(_TOO_COMPLEX, GrammarError):
            ids = self._matcher.compute_ff_tokens()[:_FORCED]
        self._check()
        return ids

    def accept(self, id: int) -> None:
        """Note that *id* has come.

        Raises ValueError if it is not allowed, and GrammarError as `allowed` does.
        """
        self.ended = id in self._tokenizer.eos_ids
        if self.ended and self._matcher.is_stopped():
            return
        with guarded(_TOO_COMPLEX, GrammarError):
            taken = self._matcher.consume_token(id)
        if not taken:
            if "(limit " in self._matcher.get_error():  # no fault of the token
                self._check()
            raise ValueError(f"token {id} is not allowed here")

    def fork(self) -> "Constraint":
        """A second text that goes on from here on its own."""
        return Constraint(self._matcher.deep_copy(), self._tokenizer)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"{_TOO_COMPLEX}: {_brief(self._matcher.get_error())}")


def _import() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ImportError(
            "structured output needs llguidance: install it with pip install 'bitnet_lut[grammar]'"
        ) from error
    return llguidance


def _vocabulary(guide: Any, tokenizer: Tokenizer) -> "llguidance.LLTokenizer":
    """The tokenizer as llguidance takes it."""
    if not tokenizer.eos_ids:
        raise GrammarError("this model has no end token, so no response format can end its text")
    first = min(tokenizer.eos_ids) if tokenizer.eos_id is None else tokenizer.eos_id

    class Pieces:
        eos_token_id = first
        bos_token_id = tokenizer.bos_id
        special_token_ids = sorted(tokenizer.special_ids)
        tokens = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]  # noqa: RUF012

        def __call__(self, text: str) -> list[int]:
            return tokenizer.encode(text, add_bos=False, add_eos=False, special=False)

    ends = [first, *sorted(tokenizer.eos_ids - {first})]
    vocabulary: llguidance.LLTokenizer = guide.LLTokenizer(
        guide.TokenizerWrapper(Pieces()), eos_token=ends
    )
    return vocabulary


def _source(guide: Any, wanted: ResponseFormat) -> tuple[str, Callable[[str], Any]]:
    """The format in llguidance's terms, and what reads a text that follows it."""
    matcher = guide.LLMatcher
    match wanted:
        case Mapping():
            return _schema_source(guide, _openai_schema(wanted)), json.loads
        case "json":
            return _schema_source(guide, {"type": "object"}), json.loads
        case Regex(pattern):
            return matcher.grammar_from_regex(pattern), str
        case re.Pattern(pattern=str(pattern), flags=flags):
            return matcher.grammar_from_regex(_inline(flags) + pattern), str
        case Lark(grammar):
            return matcher.grammar_from_lark(grammar), str
        case list() | tuple():
            return matcher.grammar_from_lark(_choices(wanted)), str
    if typed.is_type(wanted):
        schema = typed.schema_of(wanted)
        source = _schema_source(guide, schema)
        return source, lambda text: typed.from_json(wanted, json.loads(text))
    raise TypeError(
        f"response_format is {quote(wanted)}; it must be a JSON schema, 'json', a Regex, a list of "
        "texts, a Lark grammar or a type"
    )


def _openai_schema(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema in a format of the OpenAI API, or *wanted* itself, if it is a schema."""
    schema: object = wanted
    if wanted.get("type") == "json_object":
        schema = wanted.get("schema", {"type": "object"})
    elif wanted.get("type") == "json_schema":
        named = wanted.get("json_schema", wanted)
        schema = named.get("schema") if isinstance(named, Mapping) else None
    if not isinstance(schema, Mapping):
        raise GrammarError(f"response_format is {quote(dict(wanted))}, without a schema")
    return schema


def _schema_source(guide: Any, schema: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(schema, allow_nan=False)
        source: str = guide.LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        raise GrammarError(f"the JSON schema cannot be written as JSON: {error}") from None
    return source


def _inline(flags: int) -> str:
    """The flags of a compiled pattern as they are written inside one: "(?i)"."""
    letters = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}
    others = flags & ~sum(letters, int(re.UNICODE))
    if others:
        raise GrammarError(f"{re.RegexFlag(others)!r} is not supported in a response format")
    found = "".join(letter for flag, letter in letters.items() if flags & flag)
    return f"(?{found})" if found else ""


def _choices(texts: Sequence[object]) -> str:
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise GrammarError(f"choices are {quote(texts)}; they must be texts that are not empty")
    # Lark spells strings as JSON does.
    return "start: " + " | ".join(map(json.dumps, texts))


def _brief(reason: str) -> str:
    """The first lines of a message, without the grammar that it quotes."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"\d+ \||\^|<non-verbose", line)]
    return "; ".join(kept)[:400]
