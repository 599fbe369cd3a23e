"""Templates that nobody has checked: what they may not do, and how quickly they are stopped."""

import threading

import pytest

from bitnet_lut.errors import FormatError

sandbox = pytest.importorskip("bitnet_lut.text.sandbox", exc_type=ImportError)

GROW = "{%% set ns = namespace(s=%s) %%}{%% for i in range(60) %%}%s{%% endfor %%}{{ ns.s }}"


def render(source, **variables):
    return sandbox.BoundedTemplate(source, "t").render(variables)


@pytest.mark.parametrize(
    "source",
    [
        # 10^8 turns, of an empty body, of a condition, of output, of macros and of a filter
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
        "{% for a in range(10000) %}{% for b in range(10000) if false %}{% endfor %}{% endfor %}",
        "{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [1] %}{% for y in range(10000) recursive %}{% if loop.depth < 5 %}"
        "{{ loop(range(10000)) }}{% endif %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% set x = range(100000)|list %}{% endfor %}",
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        "{% for a in range(100000) %}{% call m() %}{% call m() %}{% endcall %}{% endcall %}"
        "{% endfor %}",
    ],
)
def test_long_loops_are_stopped(source):
    with pytest.raises(sandbox.Refusal, match=r"takes more than|makes more than"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 10**10 * 'a' }}",
        "{{ [1] * (10**9) }}",
        "{{ 10 ** 10 ** 1000 }}",
        GROW % ("'ab'", "{% set ns.s = ns.s ~ ns.s %}"),
        GROW % ("'ab'", "{% set ns.s = ns.s + ns.s %}"),
        GROW % ("'ab'", "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}"),
        GROW % ("'ab'", "{% set ns.s = ns.s.replace('', ns.s) %}"),
        GROW % ("'ab'", "{% set ns.s = ns.s|replace('', ns.s) %}"),
        GROW % ("'ab'", "{% set ns.s = ns.s|join(ns.s) %}"),
        GROW % ("'ab'", "{% set ns.s = ns.s.join([ns.s, ns.s, ns.s]) %}"),
        GROW % ("[1]", "{% set ns.s = [ns.s, ns.s] %}"),
        GROW % ("[1]", "{% set ns.s = (ns.s, ns.s) %}"),
        GROW % ("[1]", "{% set ns.s = {1: ns.s, 2: ns.s} %}"),
        GROW % ("[1]", "{% set ns.s = dict(a=ns.s, b=ns.s) %}"),
        GROW % ("[1]", "{% set ns.s = ns.s + ns.s %}"),
        GROW % ("2", "{% set ns.s = ns.s * ns.s %}"),
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a\\t'.expandtabs(10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ [1]|tojson(indent=10**9) }}",
        "{{ 'a'|indent(10**9) }}",
        "{{ range(10**9) }}",
        "{% set ns = namespace() %}{% set ns.a = [ns, ns] %}{{ ns }}",
        "{% macro f() %}{% for i in range(100000) %}" + "z" * 200000 + "{% endfor %}{% endmacro %}"
        "{{ f()|length }}",
        "{{ strftime_now('%1000000000d') }}",
    ],
)
def test_values_stay_small(source):
    with pytest.raises(sandbox.Refusal):
        render(source)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ (''|attr('__class__')).x }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ namespace.__init__.__globals__ }}", "unsafe"),
        ("{{ '{0.__class__}'.format(1) }}", "not available"),
        ("{{ ('{:>9'~'99999999}').format(1) }}", "not available"),
        ("{{ '{a}'.format_map({'a': 1}) }}", "not available"),
        ("{{ lipsum(100000) }}", "undefined"),
        ("{{ cycler('a').next() }}", "undefined"),
        ("{% include 'x' %}", "no loader"),
        ("{% import 'x' as x %}", "no loader"),
        ("{{ turn() }}", "undefined"),
        ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion"),
        ("{{ foo|tojson }}", "undefined value as JSON"),
    ],
)
def test_what_is_not_there(source, match):
    with pytest.raises(ValueError, match=f"^t: .*({match})"):
        render(source, messages=[])


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("{{ 'x'|center(9) }}", "No filter named 'center'"),
        ("{% if x %}", "Unexpected end of template"),
        ("{" * 5000, "nested too deeply"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deeply"),
        ("x" * (2**18 + 1), "262145 characters; 262144 are supported"),
    ],
)
def test_what_is_no_template(source, match):
    with pytest.raises(FormatError, match=match):
        render(source)


def test_names_of_a_template_do_not_hide_the_counting():
    source = (
        "{% set environment = 1 %}{% set turn = 1 %}{% set context = 1 %}"
        "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}"
    )
    with pytest.raises(sandbox.Refusal, match="turns"):
        render(source)


def test_a_large_chat_is_within_bounds():
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content | trim }}{% else %}"
        "{{ '<' ~ m.role ~ '>' + m.content.strip().split('</think>')[-1] }}{% endif %}"
        "{% if loop.last and not loop.first %}!{% endif %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "x" * 300}, {"role": "a", "content": "y" * 300}] * 2500
    assert len(render(source, messages=messages)) == 2500 * 603 + 1
    one = [{"role": "a", "content": "z" * 1_000_000}]
    assert len(render(source, messages=one)) == 1_000_003


def test_loops_know_their_length_and_sets_unpack():
    source = (
        "{% for k, v in x.items() %}{{ loop.index }}/{{ loop.length }}{{ k }}{{ v }}"
        "{{ loop.cycle('a', 'b') }}{% else %}none{% endfor %}{% set a, b = (1, 2) %}{{ a + b }}"
    )
    assert render(source, x={"p": 1, "q": 2}) == "1/2p1a2/2q2b3"
    assert render(source, x={}) == "none3"


def test_threads_may_share_a_template():
    shared = sandbox.BoundedTemplate("{% for a in range(n) %}{{ x }}{% endfor %}", "t")
    wrong = []

    def work(n):
        wrong.extend(n for _ in range(50) if shared.render({"n": n, "x": n}) != str(n) * n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
