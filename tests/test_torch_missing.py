import subprocess
import sys

import pytest

SCRIPT = """
import sys
sys.modules[{missing!r}] = None
try:
    import {module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["torch", "transformers"])
@pytest.mark.parametrize("module", ["bitnet_lut.torch", "bitnet_lut.finetune"])
def test_the_error_names_the_extra(module, missing):
    script = SCRIPT.format(missing=missing, module=module)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'bitnet_lut[train]'" in done.stdout, done.stderr


def test_the_package_does_not_need_torch():
    script = "import sys, bitnet_lut, bitnet_lut.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
