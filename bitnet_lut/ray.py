"""Many machines: the server as a Ray Serve deployment, and texts for a whole Ray dataset.

Needs ``bitnet_lut[ray]``. One replica or worker is one process that runs the engine.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import ray.data
from numpy.typing import NDArray
from ray import serve

from bitnet_lut.model import Model
from bitnet_lut.runtime.options import Options
from bitnet_lut.server.app import create_app
from bitnet_lut.server.settings import Settings

__all__ = ["application", "generate"]


def application(
    source: str,
    settings: Settings,
    *,
    cores: int = 1,
    replicas: int | Mapping[str, Any] = 1,
    **model: Any,
) -> serve.Application:
    """An application for ``serve.run`` that answers as ``bitnet-lut serve`` does.

    source: what every replica opens; a path must exist on every machine. cores: of a replica, and
    threads of its model. replicas: how many, or Ray Serve's ``autoscaling_config``, such as
    ``{"min_replicas": 1, "max_replicas": 8, "target_ongoing_requests": 8}``. model: other arguments
    of `Model`.
    """

    def build() -> Any:
        return create_app(Model(source, threads=cores, **model), settings)

    scale: dict[str, Any] = {"num_replicas": replicas}
    if not isinstance(replicas, int):
        scale = {"autoscaling_config": dict(replicas)}
    decorate = serve.deployment(
        ray_actor_options={"num_cpus": cores},
        max_ongoing_requests=settings.most_requests,
        **scale,
    )
    return decorate(serve.ingress(build)(type("BitNet", (), {}))).bind()


def generate(
    dataset: ray.data.Dataset,
    source: str,
    *,
    prompt: str = "prompt",
    text: str = "text",
    cores: int = 1,
    workers: int | tuple[int, int] = 1,
    batch: int = 64,
    model: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> ray.data.Dataset:
    """Continue column *prompt* of a dataset in a new column *text*.

    Every row gets what the model gives alone, so a row that runs again after a worker was lost is
    the same. cores, source: see `application`. workers: how many, or the least and the most. batch:
    rows that run together. model: other arguments of `Model`; options: those of `Model.generate`.
    """
    arguments = (source, prompt, text, {"threads": cores, **(model or {})}, options)
    return dataset.map_batches(
        _Worker,
        fn_constructor_args=arguments,
        batch_size=batch,
        batch_format="numpy",
        num_cpus=cores,
        concurrency=workers,
        max_restarts=-1,
        max_task_retries=-1,
    )


class _Worker:
    """A model that continues batches of prompts."""

    def __init__(
        self, source: str, prompt: str, text: str, model: dict[str, Any], options: Options
    ) -> None:
        self._model = Model(source, **model)
        self._prompt, self._text, self._options = prompt, text, options

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The batch with a new column."""
        found = self._model.generate([str(one) for one in batch[self._prompt]], **self._options)
        return {**batch, self._text: np.array([one.text for one in found], object)}
