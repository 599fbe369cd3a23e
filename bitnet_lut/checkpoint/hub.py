"""Models from the Hugging Face hub, through the optional huggingface_hub package."""

import re
from pathlib import Path

__all__ = ["download", "is_repo_id"]

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+\.gguf)?")
# What a folder of weights needs; other files of a repository stay where they are.
_FILES = ["*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "special*"]


def is_repo_id(source: str) -> bool:
    """Whether *source* reads as owner/name, or owner/name/file.gguf, and is no path here."""
    return _REPO_ID.fullmatch(source) is not None and not Path(source).exists()


def download(repo_id: str) -> Path:
    """Fetch a repository's weights, or the one GGUF file named, into the hub's cache.

    Raises ImportError if huggingface_hub is not installed, and its own errors otherwise.
    """
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{repo_id} is not a file here; to fetch it from the Hugging Face hub, "
            "pip install 'bitnet_lut[hub]'"
        ) from error
    owner, name, *file = repo_id.split("/")
    if file:
        return Path(hf_hub_download(f"{owner}/{name}", file[0]))
    return Path(snapshot_download(repo_id, allow_patterns=_FILES))
