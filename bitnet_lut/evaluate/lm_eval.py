"""An adapter for lm-eval, the evaluation harness of EleutherAI.

lm-eval does not look for models in other packages, so this module adds one to its list and then is
its command line:

    python -m bitnet_lut.evaluate.lm_eval --model bitnet_lut --model_args model=FILE --tasks ...

After ``import bitnet_lut.evaluate.lm_eval``, ``lm_eval.simple_evaluate(model="bitnet_lut", ...)``
finds it as well. Needs lm_eval: ``bitnet_lut[eval]``.
"""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from bitnet_lut.model import Model
from bitnet_lut.runtime.engine import BATCH
from bitnet_lut.runtime.likelihood import encode_text
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.runtime.scoring import Passage, score

__all__ = ["BitnetLM"]

_MOST_GENERATED = 256  # as lm-eval's hf
Pair = tuple[tuple[str, str] | None, list[int], list[int]]


class _Request(Protocol):
    """What is used of lm-eval's Instance."""

    args: tuple[Any, ...]


@register_model("bitnet_lut")
class BitnetLM(TemplateLM):
    """A `Model` as lm-eval sees one; its figures are those of lm-eval's own ``hf``.

    model: what `Model` opens: a file, a folder or a repository. max_length: most ids of a sequence,
    longer ones lose their beginning; default: the model's limit, at most 4096. settings: those of
    `Model`, such as threads and kv. Of what lm-eval gives every model, batch_size and device mean
    nothing here: sequences share steps as it suits the engine, which runs on the CPU.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        *,
        max_length: int | None = None,
        batch_size: object = None,
        max_batch_size: object = None,
        device: object = None,
        **settings: Any,
    ) -> None:
        """Open the model; raises what `Model` raises."""
        super().__init__()
        if not isinstance(model, Model):
            model = Model(model, context=max_length, **settings)
        self.model, self.max_length = model, max_length or model.context

    @property
    def eot_token_id(self) -> int:
        """EOS."""
        tokenizer = self.model.tokenizer
        found = tokenizer.bos_id if tokenizer.eos_id is None else tokenizer.eos_id
        if found is None:
            raise ValueError("this model has neither EOS nor BOS, which lm-eval needs one of")
        return found

    @property
    def prefix_token_id(self) -> int:
        """What comes before a text that has no context: BOS, or EOS where there is none."""
        bos = self.model.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """The ids of a text; with BOS where the model has it and the text does not spell it."""
        if add_special_tokens is None:
            return encode_text(self.model.tokenizer, string)
        return self.model.tokenizer.encode(string, add_bos=add_special_tokens, add_eos=False)

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        passages = []
        for _, context, continuation in requests:
            if not continuation or len(continuation) > self.max_length:
                raise ValueError(
                    f"a continuation has {len(continuation)} tokens, 1 to {self.max_length} can be "
                    "scored"
                )
            ids = [*context, *continuation][-(self.max_length + 1) :]
            passages.append(Passage(ids, len(ids) - len(continuation)))
        with tqdm(total=0, disable=disable_tqdm or None, unit="tokens", unit_scale=True) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            found = score(self.model._engine, passages, show)
        answers = [(float(one.logprobs.sum()), bool(one.greedy.all())) for one in found]
        for (texts, *_), answer in zip(requests, answers, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: Sequence[_Request], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probabilities of whole texts, cut into windows of at most ``max_length`` ids."""
        windows: list[Pair] = []
        ends = []
        for request in requests:
            cut = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            windows.extend((None, *make_disjoint_window(window)) for window in cut)
            ends.append(len(windows))
        scores = [logprob for logprob, _ in self._loglikelihood_tokens(windows, disable_tqdm)]
        found = [sum(scores[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        for request, logprob in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, logprob)
        return found

    def generate_until(self, requests: Sequence[_Request], disable_tqdm: bool = False) -> list[str]:
        """Continue texts until one of their stop strings, greedily unless they ask otherwise."""
        found = [""] * len(requests)
        alike: dict[str, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True)].append(place)
        with tqdm(total=len(requests), disable=disable_tqdm or None, unit="texts") as bar:
            for places in alike.values():
                for start in range(0, len(places), BATCH):
                    some = places[start : start + BATCH]
                    prompts = [requests[place].args[0] for place in some]
                    texts = self._continue(prompts, requests[some[0]].args[1])
                    for place, text in zip(some, texts, strict=True):
                        found[place] = text
                        self.cache_hook.add_partial("generate_until", requests[place].args, text)
                    bar.update(len(some))
        return found

    def _continue(self, prompts: Sequence[str], settings: dict[str, Any]) -> list[str]:
        """Continue texts that are generated with the same *settings*, as lm-eval's hf does."""
        chosen: dict[str, Any] = dict(normalize_gen_kwargs(settings, _MOST_GENERATED))
        eos = self.model.tokenizer.token_text(self.eot_token_id)
        until = [text for text in handle_stop_sequences(chosen.pop("until"), eos) if text]
        most = chosen.pop("max_gen_toks")
        if not 0 < most < self.max_length:
            raise ValueError(f"max_gen_toks is {most}, it must be 1 to {self.max_length - 1}")
        if not chosen.pop("do_sample"):
            chosen["temperature"] = 0.0
        unknown = chosen.keys() - {field.name for field in fields(Sampling)}
        if unknown:
            raise ValueError(f"generation_kwargs has {', '.join(unknown)}, which is unknown here")
        ids = [
            (self.tok_encode(prompt) or [self.prefix_token_id])[most - self.max_length :]
            for prompt in prompts
        ]
        results = self.model.generate(
            ids, max_tokens=most, stop=until, sampling=Sampling(**chosen, order="transformers")
        )
        texts = [self.model.tokenizer.decode(one.ids, skip_special=True) for one in results]
        return [postprocess_generated_text(text, until, None) for text in texts]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a chat; ValueError for a task that begins the answer itself."""
        if not add_generation_prompt:
            raise ValueError("a task with a gen_prefix cannot be asked as a chat here")
        return self.model.chat_templates.render(chat_history)

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps requests under that were made with a chat template."""
        return self.model.config.name or self.model.config.architecture

    def get_model_info(self) -> dict[str, Any]:
        """What goes into the results beside the figures."""
        info = self.model.info
        return {
            "model_num_parameters": info.parameters,
            "kernel": info.kernel,
            "isa": info.isa,
            "max_length": self.max_length,
        }


if __name__ == "__main__":
    cli_evaluate()
