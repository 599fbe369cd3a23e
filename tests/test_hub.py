"""Which names are asked of the Hugging Face Hub, and which are files that are not there."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bitnet_lut import Model
from bitnet_lut.checkpoint import hub, open_checkpoint
from bitnet_lut.convert.synth import synthesize


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Run in an empty folder, with a Hub whose every answer is one small model."""
    monkeypatch.chdir(tmp_path)
    synthesize(tmp_path / "answer.gguf", "tiny")
    calls = []

    def answer(*names, allow_patterns=None):
        calls.append(names)
        return str(tmp_path / "answer.gguf")

    package = SimpleNamespace(hf_hub_download=answer, snapshot_download=answer)
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    return calls


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("microsoft/bitnet-b1.58-2B-4T", ("microsoft/bitnet-b1.58-2B-4T",)),
        ("hf://tiiuae/Falcon-E", ("tiiuae/Falcon-E",)),
        ("hf://a/b/model.gguf", ("a/b", "model.gguf")),
        ("hf://a/b/q4/model.gguf", ("a/b", "q4/model.gguf")),
    ],
)
def test_repositories_are_asked_of_the_hub(asked, source, expected):
    with Model(source) as model:
        assert model.config.name == "tiny with random weights"
    assert asked == [expected]


@pytest.mark.parametrize(
    "source",
    [
        "model.gguf",
        "model",
        "./models/model",
        "models/model.gguf",
        "/models/model",
        "~/model",
        "../models",
        "models/",
        "models/2b/model.gguf",
        "models\\model",
        "here/model",
        "",
    ],
)
def test_mistyped_paths_are_not(asked, source):
    Path("here").mkdir()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        Model(source)
    assert not asked


def test_the_error_tells_how_to_ask_the_hub(asked):
    with pytest.raises(FileNotFoundError, match=r"is named hf://models/2b/x\.gguf"):
        open_checkpoint("models/2b/x.gguf")
    with pytest.raises(FileNotFoundError) as error:
        open_checkpoint("models/model.gguf")
    assert "Hub" not in str(error.value)
    assert error.value.filename == "models/model.gguf"


def test_a_path_that_is_there_is_no_repository(asked):
    Path("owner").mkdir()
    synthesize("owner/name", "tiny")
    with Model("owner/name"):
        pass
    with Model("hf://owner/name"):
        pass
    assert asked == [("owner/name",)]


@pytest.mark.parametrize("source", ["hf://", "hf://name", "hf://owner/name/file.txt", "hf:///a/b"])
def test_names_that_no_repository_has(asked, source):
    with pytest.raises(ValueError, match="hf://owner/name"):
        Model(source)
    assert not asked


@pytest.mark.parametrize("error", [FileNotFoundError(2, "offline"), OSError("no"), ValueError("?")])
def test_a_bare_name_that_the_hub_does_not_give_may_be_a_mistyped_path(asked, monkeypatch, error):
    def refuse(*names, allow_patterns=None):
        raise error

    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", refuse)
    with pytest.raises(
        FileNotFoundError, match=r"no such file or folder; .*Hub: 'models/mistyped'"
    ):
        Model("models/mistyped")
    with pytest.raises(type(error)) as raised:
        Model("hf://models/mistyped")
    assert raised.value is error


def test_without_the_package(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"^owner/name: no such file or folder; .*pip install"):
        hub.download("owner/name")
