"""A small ternary model to try the library with.

``MODEL`` is its GGUF file; MODEL_CARD.md says what it can do. It was made by ``training/demo`` in
the source repository.
"""

from pathlib import Path

__all__ = ["MODEL"]

MODEL = Path(__file__).with_name("model.gguf")
