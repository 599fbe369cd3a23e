"""The modules of the browser as an npm package, and what they took over from npm."""

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import bitnet_lut
from bitnet_lut.demo import MODEL

WEB = Path(bitnet_lut.__file__).parent / "web"
NPM = shutil.which("npm")
TYPESCRIPT = "typescript@5.9.3"

pytestmark = pytest.mark.skipif(NPM is None, reason="NO NPM: the package is not installed")


def run(*command: str | Path, folder: Path) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def npm_pack(package: str | Path, folder: Path) -> Path:
    """The archive that npm makes of a package, or has of it."""
    (made,) = json.loads(run(NPM, "pack", str(package), "--json", folder=folder))
    return folder / made["filename"].replace("@", "").replace("/", "-")


ROWS = re.findall(
    r"^\| `(.+)` \| `(.+)` \| (.+) \| `(.+)` \|$", (WEB / "vendor/README.md").read_text(), re.M
)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_vendored_files_are_those_of_npm(tmp_path, row):
    ours, package, version, theirs = row
    files = {theirs: ours, "LICENSE": f"LICENSE-{Path(ours).stem}"}
    with tarfile.open(npm_pack(f"{package}@{version}", tmp_path)) as archive:
        for name, copy in files.items():
            data = archive.extractfile(f"package/{name}").read()
            assert data == (WEB / "vendor" / copy).read_bytes()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project that has the package installed, and TypeScript."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"type": "module"}')
    run(NPM, "install", "--no-audit", "--no-fund", npm_pack(WEB, folder), TYPESCRIPT, folder=folder)
    return folder


def test_package_runs_in_node(project):
    script = f"""
import {{ BitNet }} from "bitnet-lut";
const model = await BitNet.load({json.dumps(MODEL.as_uri())}, {{ threads: 2 }});
const stream = model.stream("The capital of France is", {{ maxTokens: 5 }});
for await (const piece of stream) process.stdout.write(piece);
await model.free();
"""
    (project / "run.js").write_text(script)
    assert run("node", "run.js", folder=project) == " Paris."


def test_types_are_those_of_the_modules(project):
    (project / "use.ts").write_text(
        """
import { BitNet, BitNetError, deleteCached, listCached } from "bitnet-lut";
import type { Progress, Result } from "bitnet-lut";
const onProgress = ({ loaded }: Progress) => console.log(loaded + 1);
const model: BitNet = await BitNet.load("model.gguf", { threads: 2, onProgress });
const stream = model.stream([{ role: "user", content: "Hi" }], { temperature: 0.7, seed: 1 });
for await (const piece of stream) piece.toUpperCase();
const result: Result | undefined = stream.result;
const logits: Float32Array = await model.forward([1, 2, 3]);
// @ts-expect-error
await model.generate("Hi", { temprature: 1 });
const error = new BitNetError("format", "text");
console.log(result?.text, logits.length, error.code, model.info.tier);
for (const { url, bytes } of await listCached()) if (bytes > 1e9) await deleteCached(url);
await model.free();
"""
    )
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"]
    run("npx", "tsc", *options, "--lib", "es2023,dom,esnext.disposable", "use.ts", folder=project)
