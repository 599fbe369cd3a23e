"""What is wrong with a model, measured and in words.

`doctor` examines a model, `inspect_model` lists what a file holds without running it.
"""

from bitnet_lut.diagnose.examination import doctor
from bitnet_lut.diagnose.findings import Diagnosis, Finding, Trial, Verdict
from bitnet_lut.diagnose.inspection import (
    Inspection,
    StoredTensor,
    TernaryStatistics,
    inspect_model,
)

__all__ = [
    "Diagnosis",
    "Finding",
    "Inspection",
    "StoredTensor",
    "TernaryStatistics",
    "Trial",
    "Verdict",
    "doctor",
    "inspect_model",
]
