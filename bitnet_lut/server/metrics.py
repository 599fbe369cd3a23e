"""What an operator watches, in the format of Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"bitnet_lut_{name}", text, labels, registry=self._registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(f"bitnet_lut_{name}", text, buckets=_SECONDS, registry=self._registry)

        self.requests = counter("requests", "Requests by path and status.", ("path", "status"))
        self.refused = counter("refused", "Requests told to come back later.")
        self.canceled = counter("canceled", "Texts that were given up before their end.")
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.reused_tokens = counter("reused_tokens", "Of those, how many were computed before.")
        self.generated_tokens = counter("generated_tokens", "Tokens of texts.")
        self.preempted = counter("preempted", "Times a text gave its memory to an older one.")
        self._first = histogram("first_token_seconds", "From a request to its first token.")
        self._gap = histogram("token_gap_seconds", "Between two tokens of a text.")

    def watch(self, name: str, text: str, count: Callable[[], int]) -> None:
        """Show what *count* gives whenever somebody looks."""
        Gauge(f"bitnet_lut_{name}", text, registry=self._registry).set_function(count)

    def clock(self, started: float) -> Callable[[], None]:
        """A function to be called at every token of a text that was asked for at *started*."""
        last: float | None = None

        def tick() -> None:
            nonlocal last
            now = time.perf_counter()
            if last is None:
                self._first.observe(now - started)
            else:
                self._gap.observe(now - last)
            last = now

        return tick

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
