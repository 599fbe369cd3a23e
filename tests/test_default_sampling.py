"""How a model's files say that tokens are chosen."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden_data import GOLDEN
from model_files import rewritten

from bitnet_lut import FormatError, Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.default_sampling import default_sampling


def of_config(folder: Path, **settings: object) -> Sampling:
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return default_sampling("unused", folder, {})


def test_a_folder_says_it_in_its_generation_config(tmp_path: Path) -> None:
    assert default_sampling("unused", tmp_path, {}) == Sampling()
    assert of_config(tmp_path, eos_token_id=3) == Sampling()
    assert of_config(tmp_path, do_sample=False, temperature=0.7) == Sampling()
    assert of_config(tmp_path, repetition_penalty=1.1) == Sampling(repetition_penalty=1.1)
    stated = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9}
    expected = Sampling(**stated, repetition_penalty=1.05, order="transformers")
    assert of_config(tmp_path, do_sample=True, repetition_penalty=1.05, **stated) == expected
    assert of_config(tmp_path, do_sample=True, top_k=0, top_p=None) == Sampling(
        temperature=1.0, order="transformers"
    )


def test_the_rest_is_what_transformers_takes(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    found = of_config(tmp_path, do_sample=True)
    defaults: dict[str, Any] = transformers.GenerationConfig._get_default_generation_params()
    for name in ("temperature", "top_k", "top_p", "typical_p", "repetition_penalty"):
        assert getattr(found, name) == defaults[name]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Sampling()),
        ({"mirostat": 0}, Sampling()),
        ({"temp": 0.5}, Sampling(temperature=0.5)),
        ({"temp": -1.0, "top_k": -1}, Sampling()),
        ({"top_k": 20, "top_p": 0.5}, Sampling(temperature=1.0, top_k=20, top_p=0.5)),
        (
            {"temp": 0.0, "penalty_repeat": 1.5, "penalty_last_n": 64},
            Sampling(repetition_penalty=1.5, penalty_window=64),
        ),
        (
            {"temp": 1.0, "min_p": 0.25, "xtc_probability": 0.5, "xtc_threshold": 0.25},
            Sampling(temperature=1.0, min_p=0.25, xtc_probability=0.5, xtc_threshold=0.25),
        ),
    ],
)
def test_a_gguf_file_says_it_in_its_metadata(keys: dict[str, object], expected: Sampling) -> None:
    metadata = {f"general.sampling.{key}": value for key, value in keys.items()}
    assert default_sampling("file", None, metadata) == expected


def test_values_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"file: .* cannot be used: top_p is 2: it must be above"):
        default_sampling("file", None, {"general.sampling.top_p": 2})
    with pytest.raises(FormatError, match="temperature is 'hot': it must be a number"):
        default_sampling("file", None, {"general.sampling.temp": "hot"})
    with pytest.raises(FormatError, match=r"generation_config.json: .* min_p is -1"):
        of_config(tmp_path, do_sample=True, min_p=-1)


def test_it_is_used_where_it_is_asked_for(tmp_path: Path) -> None:
    keys = {"general.sampling.temp": 0.0, "general.sampling.penalty_repeat": 4.0}
    path = tmp_path / "model.gguf"
    rewritten(MODEL, path, keys=keys)
    model = Model(path, threads=1)
    assert model.default_sampling == Sampling(repetition_penalty=4.0)
    prompt = "Once upon a time"
    plain = model.generate(prompt, max_tokens=30)
    assert plain.ids == Model(MODEL, threads=1).generate(prompt, max_tokens=30).ids
    asked = model.generate(prompt, max_tokens=30, sampling="model")
    stated = model.generate(prompt, max_tokens=30, sampling=Sampling(repetition_penalty=4.0))
    assert plain.ids != asked.ids == stated.ids
    together = model.generate([prompt, "A"], max_tokens=30, sampling="model")
    assert together[0].ids == asked.ids
    for wrong in ("hot", 0.7):
        with pytest.raises(TypeError, match="it must be a Sampling, 'model' or None"):
            model.generate(prompt, sampling=wrong)  # type: ignore[arg-type]


def test_a_folder_that_does_not_sample_is_greedy() -> None:
    model = Model(GOLDEN / "bitnet-b1.58" / "hf-packed", threads=1)
    assert model.default_sampling == Sampling()
