"""A request's fields as the options of a generation."""

from dataclasses import fields
from typing import Any

from bitnet_lut.runtime.options import Options
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.server.errors import RequestError
from bitnet_lut.server.protocol import Generating, StructuredOutputs
from bitnet_lut.text.grammar import Lark, Regex

__all__ = ["options_of"]

# The same request gives the same answer; whoever wants another one asks with another seed.
_SEED = 0
_MOST_SEED = 2**63 - 1


def options_of(request: Generating, default: Sampling, limit: int | None) -> Options:
    """Options for `Model.generate`, but *n*.

    default: what counts where the request says nothing of how tokens are chosen.
    limit: most tokens; None: as many as the context holds.
    Raises RequestError for what makes no sense.
    """
    if request.stream_options is not None and not request.stream:
        raise RequestError(400, "stream_options are for stream: true", "stream_options")
    return Options(
        max_tokens=2**31 - 1 if limit is None else limit,
        sampling=_sampling(request, default),
        stop=request.stop or (),
        stop_token_ids=request.stop_token_ids or (),
        min_tokens=request.min_tokens or 0,
        ignore_eos=request.ignore_eos or False,
        bad_words=request.bad_words or (),
        response_format=_format(request),
        speculate=request.n in (None, 1),
    )


def _sampling(request: Generating, default: Sampling) -> Sampling:
    """How tokens are chosen: by the request, by the model's makers, or as OpenAI does."""
    values: dict[str, Any] = {one.name: getattr(default, one.name) for one in fields(Sampling)}
    for name in values:
        given = getattr(request, name)
        if given is not None:
            values[name] = given
    if request.temperature is None and default == Sampling():
        values["temperature"] = 1.0
    if request.order is None:
        values["order"] = "transformers"  # temperature first, as OpenAI's clients expect
    seed = _SEED if request.seed is None else request.seed
    if not -_MOST_SEED - 1 <= seed <= _MOST_SEED:
        raise RequestError(400, f"seed is {seed}: it must fit 64 bits", "seed")
    values["seed"] = seed % 2**64
    values["logit_bias"] = _bias(request.logit_bias or {})
    if values["top_k"] == -1:  # vLLM's word for all
        values["top_k"] = 0
    return Sampling(**values)


def _bias(given: dict[str, float]) -> dict[int, float]:
    for id in given:
        if not (id.isascii() and id.isdigit()):
            raise RequestError(
                400, f"logit_bias has the key {id[:40]!r}, not a token", "logit_bias"
            )
    return {int(id): value for id, value in given.items()}


def _format(request: Generating) -> Any:
    """The format that the text must follow; None: any."""
    wanted = request.response_format
    if wanted is not None and wanted.get("type") == "text":
        wanted = None
    if request.structured_outputs is None:
        return wanted
    if wanted is not None:
        raise RequestError(
            400, "give response_format or structured_outputs, not both", "structured_outputs"
        )
    return _structured(request.structured_outputs)


def _structured(given: StructuredOutputs) -> Any:
    found = [
        (name, getattr(given, name))
        for name in given.__struct_fields__
        if getattr(given, name) not in (None, False)
    ]
    if len(found) != 1:
        names = ", ".join(given.__struct_fields__)
        raise RequestError(400, f"structured_outputs takes one of {names}", "structured_outputs")
    ((name, value),) = found
    match name:
        case "json_object":
            return "json"
        case "regex":
            return Regex(value)
        case "grammar":
            return Lark(value)
        case "json" if isinstance(value, str):
            raise RequestError(
                400, "structured_outputs.json must be a schema", "structured_outputs"
            )
    return value
