"""Fuzzing of all that reads a GGUF file; not run by pytest and in need of the package ``atheris``.

python tests/fuzz/atheris_gguf.py CORPUS [libFuzzer options such as -max_total_time=600]

CORPUS is a folder; if it is empty, the headers of the reference data's files are put there.
"""

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden_data import GOLDEN

# Where the reader cannot say how long a header is, because the file is damaged.
DAMAGED_HEADER = 3200
# Stands for the tensor data, so that all mutations fall on the header.
TENSOR_DATA = bytes(1 << 16)


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["bitnet_lut"]):
        from bitnet_lut.checkpoint import open_checkpoint
        from bitnet_lut.errors import FormatError
        from bitnet_lut.families import tensor_shapes
        from bitnet_lut.formats.gguf import GGUFFile
        from bitnet_lut.text.tokenizer import Tokenizer

    def seed(corpus: Path) -> None:
        for path in GOLDEN.rglob("*.gguf"):
            length = DAMAGED_HEADER
            with contextlib.suppress(FormatError):
                length = GGUFFile(path).data_offset
            name = "-".join(path.relative_to(GOLDEN).parts)
            (corpus / name).write_bytes(path.read_bytes()[:length])

    def open_model(data: bytes) -> None:
        with contextlib.suppress(FormatError), open_checkpoint(data) as checkpoint:
            for name, shape in tensor_shapes(checkpoint.config).items():
                if len(shape) == 2:
                    checkpoint.matrix(name)
                else:
                    checkpoint.vector(name)

    def open_vocabulary(data: bytes) -> None:
        with contextlib.suppress(FormatError):
            Tokenizer.from_gguf(GGUFFile(data).metadata, name="<bytes>")

    def open_all(header: bytes) -> None:
        open_vocabulary(header)
        open_model(header)
        open_model(header + TENSOR_DATA)

    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        seed(corpus)
    atheris.Setup(sys.argv, open_all)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
