"""Models from the Hugging Face Hub, through the optional huggingface_hub package."""

import errno
import os
import re
from pathlib import Path

__all__ = ["download", "is_repo_id", "not_found"]

_SCHEME = "hf://"
_NAMED = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/([\w.-]+(?:/[\w.-]+)*\.gguf))?")
_BARE = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILE_SUFFIXES = (".gguf", ".safetensors", ".pt", ".pth", ".bin", ".json")
# What a folder of weights needs; other files of a repository stay where they are.
_FILES = ["*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "special*"]


def is_repo_id(source: str) -> bool:
    """Whether *source* names a repository of the Hub.

    "hf://owner/name" and "hf://owner/name/file.gguf" always do. "owner/name" does if nothing here
    has that path, there is no folder "owner", and the name does not end as a file's does.
    """
    if source.startswith(_SCHEME):
        return True
    if not _BARE.fullmatch(source) or source.endswith(_FILE_SUFFIXES):
        return False
    return not Path(source).parent.exists()


def download(repo_id: str) -> Path:
    """Fetch a repository's weights, or the one GGUF file named, into the Hub's cache.

    Raises ValueError for a name that cannot be one, ImportError if huggingface_hub is not
    installed, FileNotFoundError for a bare owner/name that the Hub does not give, and the errors of
    that package.
    """
    name, file = repo_id, None
    if repo_id.startswith(_SCHEME):
        match = _NAMED.fullmatch(repo_id)
        if match is None:
            raise ValueError(
                f"{repo_id}: models of the Hugging Face Hub are named hf://owner/name or "
                "hf://owner/name/file.gguf"
            )
        name, file = match.groups()
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError as error:
        raise ImportError(
            f"{repo_id}: no such file or folder; to fetch it from the Hugging Face Hub, "
            "pip install 'bitnet_lut[hub]'"
        ) from error
    try:
        if file is not None:
            return Path(hf_hub_download(name, file))
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        if repo_id.startswith(_SCHEME):
            raise
        # Perhaps a mistyped path: then the Hub's own words would only confuse.
        reason = "no such file or folder; nor could it be fetched from the Hugging Face Hub"
        raise FileNotFoundError(errno.ENOENT, reason, repo_id) from error


def not_found(path: str | os.PathLike[str]) -> FileNotFoundError:
    """The error for a path of a model where there is nothing."""
    reason = "no such file or folder"
    match = _NAMED.fullmatch(f"{_SCHEME}{os.fspath(path)}")
    if match is not None and not match[1].endswith(_FILE_SUFFIXES):
        reason += f"; a model of the Hugging Face Hub is named {_SCHEME}{os.fspath(path)}"
    return FileNotFoundError(errno.ENOENT, reason, os.fspath(path))
