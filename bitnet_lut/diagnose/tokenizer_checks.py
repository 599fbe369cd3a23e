"""Checks of the tokenizer: texts there and back, its rules against its vocabulary, its template."""

import re
from collections.abc import Iterator
from functools import cache

from bitnet_lut.diagnose.file_checks import odd
from bitnet_lut.diagnose.findings import Finding, fault, ok, warning
from bitnet_lut.diagnose.inspection import some, vocabulary_oddities
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.text.chat import ChatTemplates
from bitnet_lut.text.tokenizer import Tokenizer
from bitnet_lut.text.vocabulary import PRE_TOKENIZERS

__all__ = ["CHECKS", "reach"]

_ROUND_TRIP = (
    "Hello, world! It's 3.14 o'clock.",
    "  two  spaces,\ttabs\nand lines\n\n\n",
    "def f(x):\n    return x ** 2  # 1234567",
    "Grüße, naïve café, 北京, Ελλάδα, привет, नमस्ते, 🙂👍🏽",
)
_SAMPLED = 3000  # tokens of a vocabulary
_MARGIN = 0.005  # more tokens that another pre-tokenizer reaches are no accident
_NEARLY_ALL = 0.995  # of the tokens are reached by the right rule
_CONTROL = re.compile(r"<\|[^|<>{}'\"\s]+\|>|</?s>|\[/?INST\]")
_CHAT = [{"role": "user", "content": "Hi"}]

_FIX = "put the tokenizer files of the original beside the weights, or convert it again from them"


def check_quirks(subject: Subject) -> Iterator[Finding]:
    """What other programs stumble over in vocabularies of GGUF files."""
    if subject.checkpoint.kind == "gguf":
        for oddity in vocabulary_oddities(subject.checkpoint.metadata, subject.tokenizer):
            yield odd("tokenizer: quirks", oddity)


def check_sizes(subject: Subject) -> Iterator[Finding]:
    """As many ids as the embedding has rows."""
    ids, rows = subject.tokenizer.vocab_size, subject.config.vocab_size
    measured = f"{ids:,} ids, {rows:,} rows of the embedding"
    expected = "an embedding for every id; some more rows are padding"
    if ids <= rows <= 1.25 * ids + 1024:
        yield ok("tokenizer: sizes", measured, expected)
        return
    yield subject.suspicion(
        fault(
            "tokenizer: sizes",
            measured,
            expected,
            meaning="the tokenizer is that of another model",
            fix=_FIX,
            verdict="tokenizer",
            certainty=0.8,
        )
    )


def check_round_trip(subject: Subject) -> Iterator[Finding]:
    """Texts that must come back from their ids unchanged."""
    tokenizer = subject.tokenizer
    lost = []
    for text in _ROUND_TRIP:
        ids = tokenizer.encode(text, add_bos=False, add_eos=False, special=False)
        found = tokenizer.decode(ids)
        if found != text:
            lost.append(f"{text[:30]!r} comes back as {found[:30]!r}")
    expected = "every text comes back from its ids unchanged"
    if not lost:
        yield ok("tokenizer: round trip", f"{len(_ROUND_TRIP)} texts are unchanged", expected)
        return
    yield subject.suspicion(
        fault(
            "tokenizer: round trip",
            some(lost),
            expected,
            meaning="the vocabulary lacks bytes, or its rules are those of another one",
            fix=_FIX,
            verdict="tokenizer",
            certainty=0.6,
        )
    )


def check_pre_tokenizer(subject: Subject) -> Iterator[Finding]:
    """How many tokens of the vocabulary a text can reach, by each rule of cutting words."""
    own = subject.tokenizer
    if not own.pre:
        return
    shares = {own.pre: reach(own)}
    rules = {PRE_TOKENIZERS[own.pre]}
    for name, rule in PRE_TOKENIZERS.items():
        if rule not in rules:  # some names mean the same
            rules.add(rule)
            shares[name] = reach(subject.make_tokenizer(name))
    best = max(shares, key=lambda name: shares[name])
    measured = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    expected = f"{own.pre} reaches the most tokens: a vocabulary is made with the rule it is for"
    if shares[best] - shares[own.pre] < _MARGIN:
        yield ok("tokenizer: pre-tokenizer", f"tokens reached: {measured}", expected)
        return
    surely = shares[best] > _NEARLY_ALL
    found = fault(
        "tokenizer: pre-tokenizer",
        f"tokens reached: {measured}",
        expected,
        where="tokenizer.ggml.pre",
        meaning="words and numbers are cut otherwise than in training",
        fix=f"use --pre-tokenizer {best}, and convert it with that option",
        verdict="tokenizer",
        certainty=0.7 if surely else 0.6,
    )
    yield found if surely else subject.suspicion(found)


def reach(tokenizer: Tokenizer) -> float:
    """The share of a vocabulary's tokens whose text is encoded as that token alone.

    Numbers of two or more digits are all looked at, other tokens in a sample.
    """
    texts = _texts(tokenizer)
    numbers = {id: text for id, text in texts.items() if text.isdecimal() and len(text) > 1}
    step = max(1, len(texts) // _SAMPLED)
    sample = {**dict(list(texts.items())[::step]), **numbers}
    reached = sum(
        tokenizer.encode(text, add_bos=False, add_eos=False, special=False) == [id]
        for id, text in sample.items()
    )
    return reached / max(1, len(sample))


def _texts(tokenizer: Tokenizer) -> dict[int, str]:
    """The text of each token that is not a control token nor a part of a character."""
    found = {}
    for id in range(tokenizer.vocab_size):
        if not tokenizer.is_special(id):
            try:
                text = tokenizer.piece(id).decode()
            except UnicodeDecodeError:
                continue
            if text:
                found[id] = text
    return found


def check_special_tokens(subject: Subject) -> Iterator[Finding]:
    """Beginnings and ends: known, one id each, and put around a text once."""
    tokenizer = subject.tokenizer
    ids = tokenizer.encode("Hi")
    starts = 0 if tokenizer.bos_id is None else ids.count(tokenizer.bos_id)
    ends = [tokenizer.token_text(id) for id in sorted(tokenizer.eos_ids)]
    bos = "none" if tokenizer.bos_id is None else tokenizer.token_text(tokenizer.bos_id)
    measured = f"BOS {bos}, added {starts} times; ends {some(ends) if ends else 'none'}"
    expected = "BOS at most once, and an end token"
    check = "tokenizer: special tokens"
    if starts > 1:
        yield fault(
            check,
            measured,
            expected,
            meaning="BOS is put before a text twice, which models have never seen",
            fix=_FIX,
            verdict="tokenizer",
            certainty=0.6,
        )
    elif not ends:
        yield warning(
            check,
            measured,
            expected,
            meaning="nothing can end a text but a limit",
            fix=_FIX,
            verdict="tokenizer",
        )
    else:
        yield ok(check, measured, expected)


def check_template(subject: Subject) -> Iterator[Finding]:
    """The chat template against the vocabulary."""
    tokenizer = subject.tokenizer
    templates = _templates(subject)
    check = "tokenizer: chat template"
    if not templates.sources:
        yield ok(check, "none of its own", "a template, or a model that is not made for chats")
        return
    source = "\n".join(templates.sources.values())
    is_token = cache(
        lambda text: len(tokenizer.encode(text, add_bos=False, add_eos=False, special=True)) == 1
    )
    written = sorted(set(_CONTROL.findall(source)))
    unknown = [text for text in written if not is_token(text)]
    ends = [tokenizer.token_text(id) for id in sorted(tokenizer.eos_ids)]
    measured = f"it writes {some(written) if written else 'no control tokens'}"
    if unknown:
        yield warning(
            check,
            measured,
            "only control tokens that the vocabulary has",
            where=some(unknown),
            meaning="the template is that of another model: these are read as plain letters",
            fix="take the template of the original, by --chat-template",
            verdict="tokenizer",
        )
    elif ends and "eos_token" not in source and not any(end in source for end in ends):
        yield warning(
            check,
            measured,
            f"one of the ends of the vocabulary after an answer: {some(ends)}",
            meaning="an old template, or one of another model: nothing in it ends a turn",
            fix="take the newer template of the original, by --chat-template",
            verdict="tokenizer",
        )
    else:
        yield from _rendered(subject, templates, measured)


def _rendered(subject: Subject, templates: ChatTemplates, measured: str) -> Iterator[Finding]:
    """A chat as ids: BOS once."""
    check, bos = "tokenizer: chat template", subject.tokenizer.bos_id
    try:
        ids = templates.encode(_CHAT)
    except ImportError:
        yield ok(check, f"{measured}; not rendered, jinja2 is missing", "known control tokens")
        return
    except ValueError as error:
        yield warning(
            check,
            str(error),
            "a template that renders a message of a user",
            meaning="chats fail with this template",
            fix="take the template of the original, by --chat-template",
            verdict="tokenizer",
        )
        return
    starts = 0 if bos is None else ids.count(bos)
    measured = f"{measured}; {len(ids)} ids for a short chat, BOS {starts} times"
    expected = "known control tokens, an end, BOS at most once"
    if starts <= 1:
        yield ok(check, measured, expected)
        return
    yield fault(
        check,
        measured,
        expected,
        meaning="both the template and the tokenizer write BOS",
        fix="take BOS out of the template, by --chat-template",
        verdict="tokenizer",
        certainty=0.5,
    )


def _templates(subject: Subject) -> ChatTemplates:
    checkpoint, architecture = subject.checkpoint, subject.config.architecture
    if checkpoint.folder is not None:
        return ChatTemplates.from_folder(subject.tokenizer, checkpoint.folder, architecture)
    return ChatTemplates.from_gguf(
        subject.tokenizer, checkpoint.metadata, architecture, name=checkpoint.name
    )


CHECKS = (
    check_sizes,
    check_quirks,
    check_round_trip,
    check_pre_tokenizer,
    check_special_tokens,
    check_template,
)
