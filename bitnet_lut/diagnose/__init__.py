"""What is wrong with a model, measured and in words.

`doctor` examines a model, `inspect_model` lists what a file holds without running it, `diverge`
finds the first op at which two programs part, `compare` says how far two models are apart.
"""

from bitnet_lut.diagnose.compare import Comparison, LogitComparison, TokenDifference, compare
from bitnet_lut.diagnose.compare_tensors import TensorComparison, TensorDifference
from bitnet_lut.diagnose.diverge import Divergence, OpDifference, diverge
from bitnet_lut.diagnose.examination import doctor
from bitnet_lut.diagnose.findings import Diagnosis, Finding, Trial, Verdict
from bitnet_lut.diagnose.inspection import (
    Inspection,
    StoredTensor,
    TernaryStatistics,
    inspect_model,
)
from bitnet_lut.diagnose.ops import OPS
from bitnet_lut.diagnose.sources import Source, open_source
from bitnet_lut.diagnose.trace import Trace, load_dump, save_dump

__all__ = [
    "OPS",
    "Comparison",
    "Diagnosis",
    "Divergence",
    "Finding",
    "Inspection",
    "LogitComparison",
    "OpDifference",
    "Source",
    "StoredTensor",
    "TensorComparison",
    "TensorDifference",
    "TernaryStatistics",
    "TokenDifference",
    "Trace",
    "Trial",
    "Verdict",
    "compare",
    "diverge",
    "doctor",
    "inspect_model",
    "load_dump",
    "open_source",
    "save_dump",
]
