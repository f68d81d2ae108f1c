"""Writes the op library in the layout of the Hugging Face kernels hub: one command, the same sources.

    python scripts/hub_kernels.py --output build/hub --repo-id OWNER/rlsft-kernels

`OUTPUT/build/torch-{cpu,cuda,rocm}` are Python trees that `kernels.get_kernel` and `kernels.get_local_kernel` load. A
tree lives under a generated module name and has its own op namespace, so that several versions and an installed
`rlsft_kernels` share a process: absolute imports become relative and `rlsft::` becomes `rlsft_<backend>_<hash>::`. The
compiled core is not in it (its binary is of one Python version): on a CPU the reference runs, on a GPU Triton.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "kernels" / "rlsft_kernels"
NAME = "rlsft-kernels"
VERSION = 1  # one more for every change that users of the hub can notice
LICENSE = "Apache-2.0"
BACKENDS = ("cpu", "cuda", "rocm")

_FROM = re.compile(r"^(\s*)from rlsft_kernels((?:\.\w+)*) import ", re.MULTILINE)
_DYNAMIC = re.compile(r'import_module\("rlsft_kernels(\.\w+)"\)')
_PACKAGE = re.compile(r"\brlsft_kernels\b")


def relative(text: str, depth: int) -> str:
    """Source text whose imports of `rlsft_kernels` are relative; `depth` folders lie above the file."""
    dots = "." * (depth + 1)
    text = _FROM.sub(lambda m: f"{m[1]}from {dots}{m[2][1:]} import ", text)
    if depth == 0:
        return _DYNAMIC.sub(r'import_module("\1", __package__)', text)
    return text


def in_namespace(text: str, namespace: str) -> str:
    """Source text whose ops are registered and called under `namespace`."""
    return text.replace("torch.ops.rlsft.", f"torch.ops.{namespace}.").replace('"rlsft::', f'"{namespace}::')


def check_transformed(path: Path, text: str) -> None:
    """No import or op of the installed package is left in code.

    Raises:
        SystemExit: one is; the transformation has to learn its form.
    """
    code = "\n".join(line for line in text.splitlines() if re.match(r"\s*(from|import)\b|.*import_module\(", line))
    if _PACKAGE.search(code) or "torch.ops.rlsft." in text or '"rlsft::' in text:
        raise SystemExit(
            f"{path}: an import or op of rlsft_kernels has a form that scripts/hub_kernels.py does not know"
        )


def source_hash() -> str:
    """Eight hexadecimal digits of all sources: part of the namespace."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


def write_variant(folder: Path, backend: str) -> None:
    """One `torch-<backend>` tree."""
    identifier = f"_rlsft_kernels_{backend}_{source_hash()}"
    for path in sorted(SOURCES.rglob("*.py")):
        place = path.relative_to(SOURCES)
        text = in_namespace(relative(path.read_text(encoding="utf-8"), len(place.parts) - 1), identifier.strip("_"))
        if place.as_posix() == "__init__.py":
            text = text.replace("__all__ = [", "from . import layers\n\n__all__ = [", 1)
            text = text.replace('    "linear_cross_entropy",\n', '    "layers",\n    "linear_cross_entropy",\n', 1)
        check_transformed(place, text)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    metadata = {
        "id": identifier,
        "name": NAME,
        "version": VERSION,
        "license": LICENSE,
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": file_digests(folder)},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


def file_digests(folder: Path) -> dict[str, str]:
    """Base64 of the SHA-256 of every file but the metadata itself."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "metadata.json")
    digests = ((p.relative_to(folder).as_posix(), hashlib.sha256(p.read_bytes()).digest()) for p in paths)
    return {name: base64.b64encode(digest).decode() for name, digest in digests}


def build_toml(repo_id: str) -> str:
    """What the hub's own builder reads."""
    backends = ", ".join(f'"{backend}"' for backend in BACKENDS)
    general = f'name = "{NAME}"\nversion = {VERSION}\nedition = 5\nlicense = "{LICENSE}"\nbackends = [{backends}]\n'
    return f'[general]\n{general}\n[general.hub]\nrepo-id = "{repo_id}"\n\n[torch-noarch]\n'


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "hub", help="folder to write; its build/ is replaced"
    )
    parser.add_argument("--repo-id", default="rlsft/rlsft-kernels", help="OWNER/NAME on the hub")
    arguments = parser.parse_args(argv)
    trees = arguments.output / "build"
    shutil.rmtree(trees, ignore_errors=True)
    for backend in BACKENDS:
        write_variant(trees / f"torch-{backend}", backend)
    (arguments.output / "build.toml").write_text(build_toml(arguments.repo_id), encoding="utf-8")
    print(f"wrote {', '.join(f'torch-{backend}' for backend in BACKENDS)} to {trees}")


if __name__ == "__main__":
    main()
