"""Log-probabilities as OpenAI's clients read them, cut where the text is cut."""

from collections.abc import Iterator, Sequence
from typing import Any

from bitnet_lut.runtime.logprobs import TokenLogprob
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["CompletionScores", "ShownTokens", "chat_scores"]

_LEAST = -9999.0  # what OpenAI writes for minus infinity, which JSON has not


class ShownTokens:
    """Hands out the tokens of a text as soon as some of their text is shown.

    Tokens that a stop string cuts off as a whole are never handed out.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begin before the first token."""
        self._characters = tokenizer.stream(skip_special=True, start=False)
        self._waiting: list[tuple[int, TokenLogprob]] = []  # with the place where each begins
        self._told = self._shown = 0

    def take(
        self, text: str, tokens: Sequence[TokenLogprob], *, ended: bool, cut: bool
    ) -> list[TokenLogprob]:
        """The tokens that belong to what is shown by now.

        text: what has come. tokens: what has come behind it. ended: nothing follows; cut: because
        of a stop string.
        """
        for token in tokens:
            self._waiting.append((self._told, token))
            self._told += len(self._characters.push(token.id))
        self._shown += len(text)
        count = len(self._waiting)
        if cut or not ended:
            count = sum(start < self._shown for start, _ in self._waiting)
        found = [token for _, token in self._waiting[:count]]
        del self._waiting[:count]
        return found


def chat_scores(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The field logprobs of a chat."""

    def entry(id: int, logprob: float) -> dict[str, Any]:
        piece = tokenizer.piece(id)
        return {
            "token": piece.decode(errors="replace"),
            "logprob": max(logprob, _LEAST),
            "bytes": list(piece),
        }

    content = [
        entry(token.id, token.logprob) | {"top_logprobs": [entry(*one) for one in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


class CompletionScores:
    """The fields logprobs of one completion, piece by piece."""

    def __init__(self, tokenizer: Tokenizer, *, echo: bool) -> None:
        """Begin before the first token, which with *echo* is that of the prompt."""
        self._tokenizer = tokenizer
        self._characters = tokenizer.stream(skip_special=True, start=echo)
        self._offset = 0

    def take(self, tokens: Sequence[tuple[int, TokenLogprob | None]]) -> dict[str, Any]:
        """The field for ids with their scores, None for the first of a prompt."""
        offsets = []
        for id, _ in tokens:
            offsets.append(self._offset)
            self._offset += len(self._characters.push(id))
        scores = [score for _, score in tokens]
        return {
            "tokens": [self._tokenizer.piece(id).decode(errors="replace") for id, _ in tokens],
            "token_logprobs": [score and max(score.logprob, _LEAST) for score in scores],
            "top_logprobs": [score and dict(_named(self._tokenizer, score)) for score in scores],
            "text_offset": offsets,
        }


def _named(tokenizer: Tokenizer, score: TokenLogprob) -> Iterator[tuple[str, float]]:
    """The likeliest tokens, and the chosen one, by their texts; by their bytes if those clash."""
    seen: set[str] = set()
    for id, logprob in dict([*score.top, (score.id, score.logprob)]).items():
        piece = tokenizer.piece(id)
        text = piece.decode(errors="replace")
        if "\ufffd" in text or text in seen:
            text = (
                "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece) + f"#{id}" * (text in seen)
            )
        seen.add(text)
        yield text, max(logprob, _LEAST)
