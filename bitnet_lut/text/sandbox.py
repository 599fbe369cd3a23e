"""Jinja templates from files nobody has checked, rendered within bounds of work and size.

Jinja's own sandbox keeps a template away from Python's internals, but lets it loop for ever and
build strings of any length. Here every loop turn, macro entry and call is counted, and whatever
could grow a value checks the size of the result before it is made. The limits count work, not
seconds, so that a template passes or fails the same on every machine; the processor time that
one rendering may take is bounded as well.
"""

import functools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

try:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.runtime import Context, Macro, Undefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace
    from jinja2.visitor import NodeTransformer
except ImportError as error:
    raise ImportError(
        "chat templates need jinja2: install it with pip install 'bitnet_lut[chat]'"
    ) from error

from bitnet_lut.errors import FormatError

__all__ = ["BoundedTemplate", "Refusal"]

_TURNS = 300_000  # loop turns, macro entries and calls of one rendering
_SECONDS = 3.0  # of processor time, in case the counted work is slower than expected
_CHARACTERS = 2**27  # made in all, a bound for what lies in the buffers of blocks and macros
_SIZE = 2**22  # characters of one string or container
_ENTRY = 8  # what an entry of a container counts beside its own size
_PRODUCT = 2**28  # of the sizes of what goes into a call that may multiply them
_BITS = 4096  # of an integer
_NUMBER = 100_000  # the largest integer that may be an argument of a call or a filter
_SOURCE = 2**18  # characters of a template
_WIDE = re.compile(r"\*|\d{4}")  # in a % format: a width from the arguments, or a huge one

# What chat templates use. The filters that are missing here can make a value grow past its bounds,
# take regular expressions to it, or are random.
_FILTERS = re.findall(
    r"\w+",
    """
    abs attr batch capitalize count d default dictsort e escape first float groupby indent int
    items join last length list lower map max min reject rejectattr replace reverse round safe
    select selectattr slice sort string sum title trim truncate unique upper
    """,
)
# The size of their result may be the product of the sizes of what goes in.
_MULTIPLYING = {"batch", "indent", "join", "replace", "slice", "tojson"}


class Refusal(ValueError):
    """A template called ``raise_exception``, or went beyond its bounds; the text says which."""


class BoundedTemplate:
    """A chat template. Threads may share one: it renders for one of them at a time."""

    def __init__(self, source: str, name: str) -> None:
        """Compile *source*; *name* says in errors where it came from.

        Raises FormatError for a source that is not a template or uses what is not allowed.
        """
        self._name = name
        self._lock = threading.Lock()
        if len(source) > _SOURCE:
            raise FormatError(f"{name}: {len(source)} characters; {_SOURCE} are supported")
        self._environment = _Environment()
        try:
            tree = _Counting().visit(self._environment.parse(source))
            self._template = self._environment.from_string(tree)
        except TemplateError as error:
            raise FormatError(f"{name}: {error}") from None
        except (RecursionError, SyntaxError, MemoryError) as error:
            raise FormatError(f"{name}: the template is nested too deeply") from error

    def render(self, variables: Mapping[str, object]) -> str:
        """The text of the template with these *variables*.

        Raises Refusal if the template itself refuses them or exceeds its bounds, and ValueError if
        it fails in another way, which happens where it expects other variables.
        """
        with self._lock:
            self._environment.start()
            pieces = []
            try:
                for piece in self._template.generate(variables):
                    self._environment.write(len(piece))
                    pieces.append(piece)
            except Refusal as error:
                raise Refusal(f"{self._name}: {error}") from None
            except Exception as error:
                # A template may raise anything that Python's operators and methods raise.
                what = str(error) or type(error).__name__
                raise ValueError(f"{self._name}: the template failed: {what}") from error
            return "".join(pieces)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with what chat templates expect in it, and with bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants would be computed while no limits hold
            extensions=[loopcontrols, _GenerationBlock],
            finalize=self.shown,
        )
        filters = {name: self.filters[name] for name in _FILTERS} | {"tojson": _to_json}
        self.filters = {name: self._bounded(name, f) for name, f in filters.items()}
        self.globals = {name: self.globals[name] for name in ("range", "dict", "namespace")}
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.start()

    def start(self) -> None:
        """Start counting from zero."""
        self._turns = self._characters = 0
        self._deadline = time.thread_time() + _SECONDS

    def turn(self, characters: int = 0) -> bool:
        """Count one loop turn that may write so many *characters* of the template's own text."""
        self._turns += 1
        if self._turns > _TURNS:
            raise Refusal(f"the template takes more than {_TURNS} turns")
        if self._turns % 64 == 0 and time.thread_time() > self._deadline:
            raise Refusal(f"the template takes more than {_SECONDS:g} seconds")
        self.write(characters)
        return True

    def write(self, characters: int) -> None:
        """Count *characters* of output, or of a value that the template has computed."""
        self._characters += characters
        if self._characters > _CHARACTERS:
            raise Refusal(f"the template makes more than {_CHARACTERS} characters")

    def shown(self, value: object) -> object:
        """Check a value that is going to be printed."""
        self.write(_size(value))
        return value

    def built(self, value: object) -> object:
        """Check a list, tuple or dict that the template has written down."""
        self.write(_size(value))
        return value

    def joined(self, *values: object) -> str:
        """The ``~`` of templates."""
        self.write(_check(sum(map(_size, values))))
        return "".join(map(str, values))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do the operators that can make a value grow, once that is known to be harmless."""
        if isinstance(left, int) and isinstance(right, int):
            bits = max(left.bit_length(), right.bit_length())
            if operator == "*":
                bits *= 2
            elif operator == "**":
                bits = left.bit_length() * abs(right)
            if bits > _BITS:
                raise Refusal(f"the template computes a number of {bits} bits")
        elif operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise Refusal(f"the template formats with {left[:80]!r}")
        elif operator == "*" and isinstance(right, int):
            _check(_size(left) * max(0, right))
        elif operator == "*" and isinstance(left, int):
            _check(_size(right) * max(0, left))
        elif operator == "+" and isinstance(left, str | list | tuple):
            _check(_size(left) + _size(right))
        result = super().call_binop(context, operator, left, right)
        self.write(_size(result))
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something for a template. The odd names leave all others to its keywords."""
        if isinstance(__obj, Macro) or getattr(__obj, "__self__", None) is __self:
            return super().call(__context, __obj, *args, **kwargs)  # these count on their own
        __self.turn()
        owner = getattr(__obj, "__self__", None)
        if getattr(__obj, "__name__", "") in ("format", "format_map"):
            raise SecurityError("str.format is not available to chat templates")
        _check_numbers(args, kwargs)
        if isinstance(owner, str):
            _check_product(owner, *args, *kwargs.values())
        result = super().call(__context, __obj, *args, **kwargs)
        __self.write(_size(result))
        return result

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that counts as a turn and checks the size of what it makes."""

        @functools.wraps(function)  # and so keeps Jinja's mark of what its first argument is
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            _check_numbers(args[1:], kwargs)
            if name in _MULTIPLYING:
                _check_product(*args, *kwargs.values())
            result = function(*args, **kwargs)
            self.write(_size(result))
            return result

        return bounded


class _Counting(NodeTransformer):
    """Has a template count its turns, and check what it builds."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Count every turn of a loop, and of its condition."""
        self.generic_visit(node)
        node.body.insert(0, _count(node.body))
        if node.test is not None:
            node.test = nodes.And(_call("turn"), node.test)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Count every entry."""
        self.generic_visit(node)
        node.body.insert(0, _count(node.body))
        return node

    visit_CallBlock = visit_Macro  # it has a body as well

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Check the sum of the parts."""
        self.generic_visit(node)
        return _call("joined", *node.nodes)

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:
        """Check what may hold the same list many times."""
        self.generic_visit(node)
        return _call("built", node)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """Check a tuple too, unless it is one of names that are assigned to."""
        self.generic_visit(node)
        return _call("built", node) if node.ctx == "load" else node


class _GenerationBlock(Extension):
    """``{% generation %}`` marks what training counts; for rendering it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - Jinja wants a set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Drop the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _call(method: str, *args: nodes.Expr) -> nodes.Call:
    """A call of a method of the environment, which no name of the template can hide."""
    return nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)


def _count(body: list[nodes.Node]) -> nodes.Node:
    text = sum(len(data.data) for node in body for data in node.find_all(nodes.TemplateData))
    return nodes.ExprStmt(_call("turn", nodes.Const(text)))


def _size(value: object) -> int:
    """How large *value* is, at least 1; Refusal if it is too large."""
    return _check(_measure(value, _SIZE))


def _measure(value: object, most: int) -> int:
    """Characters in *value*, with all it holds; stops shortly after *most*."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, int):
        return max(1, min(abs(value), _NUMBER))
    if isinstance(value, Namespace):
        return 1
    total = 1
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for entry in value:
            if isinstance(entry, Namespace):
                raise Refusal("the template puts a namespace into a list")
            total += _ENTRY
            if not isinstance(entry, int):
                total += _measure(entry, most - total)
            if total > most:
                break
    return total


def _check(size: int) -> int:
    if size > _SIZE:
        raise Refusal(f"the template makes a value of more than {_SIZE} characters")
    return size


def _check_product(*values: object) -> None:
    """Refuse a call whose result could be as large as all *values* multiplied."""
    if math.prod(map(_size, values)) > _PRODUCT:
        raise Refusal(f"the template makes a value of up to {_PRODUCT} characters or more")


def _check_numbers(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > _NUMBER:
            raise Refusal(f"the template calls with a number beyond {_NUMBER}")


def _raise_exception(message: object) -> None:
    raise Refusal(f"the template refuses these messages: {message}")


def _strftime_now(form: str) -> str:
    if len(form) > 80 or re.search(r"%\W*\d", form):
        raise Refusal(f"the template formats a date with {form[:80]!r}")
    return time.strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers has it in templates: nothing is escaped for HTML."""
    if isinstance(value, Undefined):
        raise Refusal("the template writes an undefined value as JSON")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
