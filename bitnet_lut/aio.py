"""A model for asyncio: texts that are asked for at the same time run together."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, Unpack

from bitnet_lut.model import Model
from bitnet_lut.runtime.chatting import Messages
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.options import Options
from bitnet_lut.runtime.scheduler import Run
from bitnet_lut.runtime.worker import Worker

__all__ = ["AsyncModel", "AsyncTextStream"]


class AsyncModel:
    """A `Model` whose texts are awaited. All that run at once share every step.

    Each text is the one that the model gives alone, bit for bit and seed for seed. A task that is
    canceled frees its memory within one step.

    >>> model = AsyncModel(Model("model.gguf"))
    >>> one, other = await asyncio.gather(model.generate("One"), model.generate("Two"))
    """

    def __init__(self, model: Model) -> None:
        """Use *model*, which others may go on using."""
        self.model = model
        self._worker = Worker(model._engine)

    @classmethod
    async def open(cls, source: Any = None, **settings: Any) -> Self:
        """Open a model without blocking the event loop; the arguments are those of `Model`."""
        return cls(await asyncio.to_thread(Model, source, **settings))

    def stream(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> "AsyncTextStream":
        """Generate text piece by piece; arguments as for `Model.generate`.

        Errors in them are raised when the first piece is awaited.
        """
        return AsyncTextStream(self._worker, self.model, prompt, options)

    async def generate(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Generation:
        """Continue *prompt*; arguments and errors as for `Model.generate` with one prompt."""
        return await self.stream(prompt, **options).finish()

    def chat_stream(
        self,
        messages: Messages,
        *,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
        **options: Unpack[Options],
    ) -> "AsyncTextStream":
        """Write the next message of a chat piece by piece; see `Model.chat_stream`."""
        ids = self.model.apply_chat_template(
            messages, template=template, tools=tools, variables=variables
        )
        return self.stream(ids, **self.model._chat_options(options))

    async def chat(
        self,
        messages: Messages,
        *,
        template: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, object] | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Write the next message of a chat; see `Model.chat`."""
        stream = self.chat_stream(
            messages, template=template, tools=tools, variables=variables, **options
        )
        return await stream.finish()


class AsyncTextStream:
    """An asynchronous iterator over the pieces of a text; ``result`` sums up what came."""

    def __init__(
        self, worker: Worker, model: Model, prompt: str | Sequence[int], options: Options
    ) -> None:
        """`AsyncModel.stream` makes one. Nothing runs before the first piece is awaited."""
        self._worker, self._model = worker, model
        self._prompt, self._options = prompt, options
        self._pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self._run: Run | None = None
        self._ended = False

    def __aiter__(self) -> AsyncIterator[str]:
        """Return itself."""
        return self

    async def __anext__(self) -> str:
        """Return the next piece of text, never an empty one; errors as those of `TextStream`.

        Where the awaiting task is canceled, the text ends.
        """
        try:
            if self._run is None and not self._ended:
                await self._start()
            piece: str | Exception | None = "" if not self._ended else None
            while piece == "":
                piece = await self._pieces.get()
        except BaseException:
            self._end()
            raise
        if isinstance(piece, str):
            return piece
        self._ended = True
        if piece is None:
            raise StopAsyncIteration
        raise piece

    async def finish(self) -> Generation:
        """Wait for the end of the text and return it."""
        async for _ in self:
            pass
        return self.result

    async def aclose(self) -> None:
        """End the text where it is."""
        self._end()

    async def __aenter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self._end()

    def __del__(self) -> None:
        """End a text that nobody can await any more."""
        self._end()

    @property
    def result(self) -> Generation:
        """Everything generated so far; ValueError before the first piece was awaited."""
        if self._run is None:
            raise ValueError("this stream was not started: await its first piece")
        return self._run.result

    async def _start(self) -> None:
        # A grammar may take a while to compile.
        made: tuple[Decoder, int] = await asyncio.to_thread(
            self._model._make_one, self._prompt, self._options
        )
        loop = asyncio.get_running_loop()
        pieces = self._pieces

        def tell(piece: str | Exception | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        self._run = self._worker.start(*made, tell)

    def _end(self) -> None:
        if self._run is not None and not self._ended:
            self._worker.cancel(self._run)
        self._ended = True
