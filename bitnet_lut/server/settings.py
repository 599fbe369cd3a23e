"""What whoever runs a server decides."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Limits and names of a server.

    name: of the model, as clients ask for it.
    api_keys: clients must send one of them as ``Authorization: Bearer KEY``; none: anybody may ask.
    cors: origins whose pages may ask, such as ``https://example.com``.
    most_requests: requests that run or wait at once; more are told to come back later.
    most_prompt_tokens: tokens of all prompts that run or wait.
    most_body: bytes of a request. most_choices: texts of one request, ``n`` for every prompt.
    prefix_bytes: keys and values of earlier texts that are kept for new ones; 0: none.
    cache_bytes: keys and values of all texts that run and of those that are kept; None: half of
        the memory that is free at the start, and at least what one text can take.
    step_seconds: how long texts that generate wait for a piece of another's prompt.
    """

    name: str
    api_keys: Sequence[str] = ()
    cors: Sequence[str] = ()
    most_requests: int = 256
    most_prompt_tokens: int = 200_000
    most_body: int = 4 * 2**20
    most_choices: int = 128
    prefix_bytes: int = 2**30
    cache_bytes: int | None = None
    step_seconds: float = 0.1
