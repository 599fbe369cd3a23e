"""Structured output against MaskBench's schemas and documents, jsonschema, and re."""

import dataclasses
import enum
import json
import random
import re
import threading
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import jsonschema
import numpy as np
import pytest
from golden_data import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import demo
from bitnet_lut.errors import GrammarError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text import typed
from bitnet_lut.text.grammar import Grammars, Lark, Regex
from bitnet_lut.text.tokenizer import Tokenizer

pytest.importorskip("llguidance")

SCHEMAS = sorted((SHARED.parent / "serving/schemas").glob("*.json"))
# What llguidance says it cannot do; everything else must be followed exactly.
REFUSED = {
    "15": "oneOf",
    "33": "propertyNames",
    "39": "not",
    "68": "oneOf",
    "165": "dependencies",
    "179": "uniqueItems",
    "227": "uniqueItems",
    "242": "Unknown format: expose",
    "329": "not",
    "333": "oneOf",
}
TOKENIZER = Tokenizer.from_gguf(GGUFFile(demo.MODEL).metadata, name="demo")
GRAMMARS = Grammars(TOKENIZER)
OBJECT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def ids_of(text):
    return TOKENIZER.encode(text, add_bos=False, special=False)


def accepts(grammar, text):
    """Whether each token of *text* is allowed where it comes, and the text may end there."""
    constraint = grammar.start()
    for id in ids_of(text):
        if not constraint.allowed()[id]:
            return False
        constraint.accept(id)
    ends = constraint.allowed()[sorted(TOKENIZER.eos_ids)]
    assert constraint.complete == ends.all() == ends.any()
    return constraint.complete


def write(grammar, seed, *, most=400, weights=None):
    """A random text of *grammar*, with forced tokens; None if it did not end in *most* tokens."""
    chance = random.Random(seed)
    constraint = grammar.start()
    ids = []
    while len(ids) < most:
        forced = constraint.forced()
        for id in forced:
            if id in TOKENIZER.eos_ids:
                return TOKENIZER.decode(ids)
            assert constraint.allowed()[id]
            constraint.accept(id)
            ids.append(id)
        if forced:
            continue
        (allowed,) = np.nonzero(constraint.allowed())
        id = chance.choice(allowed.tolist())
        if constraint.complete and chance.random() < 0.5:
            return TOKENIZER.decode(ids)
        if id not in TOKENIZER.eos_ids:
            constraint.accept(id)
            ids.append(id)
    return None


@pytest.mark.parametrize("file", SCHEMAS, ids=[file.stem for file in SCHEMAS])
def test_schemas_of_maskbench(file):
    case = json.loads(file.read_text(encoding="utf-8"))
    if file.stem in REFUSED:
        with pytest.raises(GrammarError, match=REFUSED[file.stem]):
            GRAMMARS.compile(case["schema"])
        return
    grammar = GRAMMARS.compile(case["schema"])
    for test in case["tests"]:
        text = json.dumps(test["data"], separators=(",", ":"), ensure_ascii=False)
        assert accepts(grammar, text) == test["valid"], test["description"]
        if test["valid"]:
            assert grammar.parse(text) == test["data"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the schemas are in ../shared")
def test_there_are_150_schemas():
    assert len(SCHEMAS) == 150


@pytest.mark.parametrize("file", SCHEMAS[::5], ids=[file.stem for file in SCHEMAS[::5]])
def test_random_texts_are_valid(file):
    schema = json.loads(file.read_text(encoding="utf-8"))["schema"]
    if file.stem in REFUSED:
        return
    grammar = GRAMMARS.compile(schema)
    for seed in range(3):
        text = write(grammar, seed)
        if text is not None:
            jsonschema.validate(grammar.parse(text), schema)


def test_forced_tokens_are_those_of_the_text():
    grammar = GRAMMARS.compile(OBJECT)
    constraint = grammar.start()
    forced = constraint.forced()
    assert TOKENIZER.decode(forced) == '{"name":"'
    assert forced == ids_of('{"name":"')
    for id in forced:
        constraint.accept(id)
    assert constraint.forced() == []
    assert not constraint.complete
    for id in ids_of('Ann","age":3}'):
        constraint.accept(id)
    assert constraint.complete
    assert constraint.forced() == [TOKENIZER.eos_id]
    assert np.flatnonzero(constraint.allowed()).tolist() == sorted(TOKENIZER.eos_ids)
    constraint.accept(TOKENIZER.eos_id)
    assert constraint.complete


def test_control_tokens_are_never_allowed_inside():
    constraint = GRAMMARS.compile(OBJECT).start()
    for id in ids_of('{"name":"'):
        constraint.accept(id)
    allowed = constraint.allowed()
    assert allowed.shape == (TOKENIZER.vocab_size,)
    assert allowed.dtype == np.bool_
    assert allowed.sum() > 1000
    assert not allowed[sorted(TOKENIZER.special_ids)].any()
    with pytest.raises(ValueError, match=f"token {TOKENIZER.eos_id} is not allowed here"):
        constraint.accept(TOKENIZER.eos_id)


def test_a_fork_goes_on_alone():
    constraint = GRAMMARS.compile(["ab", "ac"]).start()
    constraint.accept(ids_of("a")[0])
    fork = constraint.fork()
    fork.accept(ids_of("b")[0])
    assert fork.complete
    assert not constraint.complete
    constraint.accept(ids_of("c")[0])
    assert constraint.complete


def test_json_has_no_spaces_to_write_for_ever():
    grammar = GRAMMARS.compile({**OBJECT, "x-guidance": {"whitespace_flexible": True}})
    assert accepts(grammar, '{"name":"A","age":1}')
    assert not accepts(grammar, '{"name": "A", "age": 1}')
    assert not accepts(grammar, '{"name":"A","age":1} ')


def test_any_json_object():
    for wanted in ("json", {"type": "json_object"}):
        grammar = GRAMMARS.compile(wanted)
        assert accepts(grammar, '{"a":[1,{"b":null}]}')
        assert not accepts(grammar, "[1]")
        assert grammar.parse('{"a":1.5}') == {"a": 1.5}


def test_formats_of_the_openai_api():
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": OBJECT, "strict": True}}
    llama_cpp = {"type": "json_object", "schema": OBJECT}
    for wanted in (named, llama_cpp):
        assert accepts(GRAMMARS.compile(wanted), '{"name":"A","age":1}')
        assert not accepts(GRAMMARS.compile(wanted), '{"age":1}')
    with pytest.raises(GrammarError, match="without a schema"):
        GRAMMARS.compile({"type": "json_schema", "json_schema": {}})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5, unique=True),
    st.text(max_size=12),
)
def test_choices(texts, other):
    grammar = GRAMMARS.compile(texts)
    for text in texts:
        assert accepts(grammar, text)
        assert grammar.parse(text) == text
    assert accepts(grammar, other) == (other in texts)


@pytest.mark.parametrize("texts", [[], [""], ["a", 1], ()])
def test_what_is_no_choice(texts):
    with pytest.raises(GrammarError, match="choices are"):
        GRAMMARS.compile(texts)


@pytest.mark.parametrize(
    "pattern", ["[ab]{1,3}", "(x|yz)*!", r"\d{3}-\d{4}", "é+", "a.c", "(?i)ok"]
)
@pytest.mark.parametrize("as_pattern", [False, True])
def test_regexes(pattern, as_pattern):
    grammar = GRAMMARS.compile(re.compile(pattern) if as_pattern else Regex(pattern))
    texts = [
        "ab",
        "abab",
        "x!",
        "yzx!",
        "555-1234",
        "éé",
        "abc",
        "a\nc",
        "OK",
        "ok",
        "oK.",
        "",
        "!",
    ]
    for text in texts:
        assert accepts(grammar, text) == bool(re.fullmatch(pattern, text)), text
    for seed in range(5):
        text = write(grammar, seed)
        assert text is None or re.fullmatch(pattern, text)


def test_flags_of_a_pattern():
    grammar = GRAMMARS.compile(re.compile("a . b", re.IGNORECASE | re.DOTALL | re.VERBOSE))
    assert accepts(grammar, "A\nB")
    assert not accepts(grammar, "a . b")


def test_lark():
    grammar = GRAMMARS.compile(Lark('start: "yes" | "no" ", because " /[a-z ]+/ "."'))
    assert accepts(grammar, "yes")
    assert accepts(grammar, "no, because it rains.")
    assert not accepts(grammar, "no")
    assert grammar.parse("yes") == "yes"


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        (Regex("("), "unclosed group"),
        (Regex("[a-"), "unclosed character class"),
        (Regex("(?=a)b"), "look-around"),
        (Regex("(" * 10000), "regex"),
        (re.compile("a", re.ASCII), "ASCII is not supported"),
        (Lark("start: foo"), 'unknown name: "foo"'),
        (Lark("start: " + "(" * 10000 + '"a"' + ")" * 10000), "cannot be followed"),
        (Lark("start: start"), "no text matches it|NoExtension|cannot be followed"),
        (Lark(""), "Empty grammar"),
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "string", "pattern": "["}, "unclosed character class"),
        ({"$ref": "http://example.com/x"}, "not present in a registry"),
        ({"$ref": "#/$defs/x"}, "x"),
        ({"oneOf": [{"type": "string"}, {"minimum": 1}]}, "oneOf"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": {1, 2}}, "cannot be written as JSON"),
        ({"description": "x" * 2**20}, "characters, at most"),
    ],
)
def test_what_cannot_be_followed_is_refused_before(wanted, match):
    with pytest.raises(GrammarError, match=match):
        GRAMMARS.compile(wanted)


def test_deep_schemas_are_refused():
    schema = {"type": "string"}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(GrammarError, match=r"recursion|nest"):
        GRAMMARS.compile(schema)


@pytest.mark.parametrize("wanted", [1, None, "xml", object()])
def test_what_is_no_format(wanted):
    with pytest.raises(TypeError, match="response_format is"):
        GRAMMARS.compile(wanted)


def test_a_vocabulary_without_an_end():
    class NoEnd:
        eos_ids = frozenset()

    with pytest.raises(GrammarError, match="no end token"):
        Grammars(NoEnd()).compile("json")


def test_compiled_grammars_are_kept_within_bounds(monkeypatch):
    monkeypatch.setattr("bitnet_lut.text.grammar._CACHED", 250)
    grammars = Grammars(TOKENIZER)
    first = grammars.compile(Regex("a" * 40))
    assert grammars.compile(Regex("a" * 40))._matcher is first._matcher
    for letter in "bcd":
        grammars.compile(Regex(letter * 40))
    assert grammars._size <= 250
    assert grammars._size == sum(map(len, grammars._compiled))
    assert grammars.compile(Regex("a" * 40))._matcher is not first._matcher
    assert accepts(first, "a" * 40)


def test_threads_may_share_grammars():
    grammars = Grammars(TOKENIZER)
    wrong = []

    def work(letter):
        for _ in range(20):
            grammar = grammars.compile(Regex(f"{letter}+"))
            other = chr(ord(letter) + 1)
            if not accepts(grammar, letter * 5) or accepts(grammar, other):
                wrong.append(letter)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "aabb"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Types.


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


@dataclasses.dataclass
class Everything:
    point: Point
    color: Color
    kind: Literal["a", 1, True]
    words: list[str]
    pair: tuple[int, str]
    many: tuple[Point, ...]
    table: dict[str, float | None]
    movie: Movie
    child: "Everything | None" = None
    note: Annotated[str, "of the author"] = ""


EVERYTHING = Everything(
    point=Point(1, 2.0),
    color=Color.BLUE,
    kind=1,
    words=["x"],
    pair=(3, "y"),
    many=(Point(4, 5.5),),
    table={"k": None, "l": 1.5},
    movie={"title": "Up"},
)


def test_a_dataclass_is_read_back():
    grammar = GRAMMARS.compile(Everything)
    data = dataclasses.asdict(EVERYTHING) | {"color": "blue"}
    text = json.dumps(data, separators=(",", ":"))
    assert accepts(grammar, text)
    assert grammar.parse(text) == EVERYTHING
    nested = json.dumps(data | {"child": data}, separators=(",", ":"))
    assert accepts(grammar, nested)
    assert grammar.parse(nested) == dataclasses.replace(EVERYTHING, child=EVERYTHING)
    jsonschema.validate(json.loads(nested), typed.schema_of(Everything))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", [Point, Movie, list[Point], Color, Everything, int | None])
def test_random_texts_of_a_type_are_its_values(kind, seed):
    grammar = GRAMMARS.compile(kind)
    text = write(grammar, seed)
    if text is None:
        return
    value = grammar.parse(text)
    if isinstance(kind, type) and kind is not Movie and not hasattr(kind, "__origin__"):
        assert isinstance(value, kind)
    jsonschema.validate(json.loads(text), typed.schema_of(kind))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Point, '{"x":1}', Point(1)),
        (Movie, '{"title":"Up","year":2009}', {"title": "Up", "year": 2009}),
        (list[int], "[1,2]", [1, 2]),
        (list, "[1,{}]", [1, {}]),
        (dict[str, Point], '{"a":{"x":1,"y":2}}', {"a": Point(1, 2.0)}),
        (int | str, '"1"', "1"),
        (float, "1", 1.0),
        (Literal["a", "b"], '"b"', "b"),
        (list[Any], '[null,"x"]', [None, "x"]),
        (tuple[Color, ...], '["red"]', (Color.RED,)),
    ],
)
def test_types(kind, text, value):
    grammar = GRAMMARS.compile(kind)
    assert accepts(grammar, text)
    parsed = grammar.parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Point, '{"y":1}'), (Point, '{"x":1.5}'), (Movie, "{}"), (Color, '"green"'), (bool, "1")],
)
def test_what_is_no_value_of_a_type(kind, text):
    assert not accepts(GRAMMARS.compile(kind), text)
    with pytest.raises((TypeError, ValueError)):
        GRAMMARS.compile(kind).parse(text)


@pytest.mark.parametrize("kind", [complex, dict[int, str], list[complex], set[int]])
def test_types_without_a_schema(kind):
    with pytest.raises(TypeError, match="has no JSON schema"):
        GRAMMARS.compile(kind)


def test_two_types_of_one_name():
    @dataclasses.dataclass
    class Point:
        z: int

    with pytest.raises(TypeError, match="two types are called Point"):
        typed.schema_of(tuple[globals()["Point"], Point])


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "\ud800"])
def test_schemas_with_what_json_cannot_hold(value):
    with pytest.raises(GrammarError, match="cannot be written as JSON"):
        GRAMMARS.compile({"const": value})


@pytest.mark.parametrize("value", [-(2**63), -(2**63) + 1, -(2**63) + 511])
def test_numbers_over_which_the_library_ends_the_process(value):
    lark = Lark(f'start: %json {{"const": {value}}}')
    for wanted in ({"const": value}, {**OBJECT, "properties": {"x": {"enum": [1, value]}}}, lark):
        with pytest.raises(GrammarError, match="within a thousand of -2\\^63 are not supported"):
            GRAMMARS.compile(wanted)
    assert GRAMMARS.compile({"const": -(2**62)})


def test_a_format_that_no_text_completes():
    node = {
        "type": "object",
        "properties": {"value": {"type": "null"}, "next": {"$ref": "#/$defs/node"}},
        "required": ["value", "next"],
        "additionalProperties": False,
    }
    constraint = GRAMMARS.compile({"$defs": {"node": node}, "$ref": "#/$defs/node"}).start()
    constraint.allowed()
    with pytest.raises(GrammarError, match="became too complex to follow"):
        constraint.accept(TOKENIZER.encode("{", add_bos=False)[0])
