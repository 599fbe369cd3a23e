"""A small ternary model to try the library with, and everything it was made by.

``MODEL`` is the file; MODEL_CARD.md says what it can do. Importing this package needs nothing
beyond what bitnet_lut needs; ``corpus`` makes its text and ``evaluate`` asks it questions, while
``train`` needs the extra ``[train]``.
"""

from pathlib import Path

__all__ = ["MODEL"]

MODEL = Path(__file__).with_name("model.gguf")
