"""Models and tokenizers from a local folder, with errors that say what the folder lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlsft.errors import ModelError

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def load_tokenizer(path: str | os.PathLike[str] | Any, *, pad_token: str | None = None) -> Any:
    """The tokenizer of a model folder, with a pad token.

    Args:
        path: a folder (or a Hub name, when a connection is allowed), or a tokenizer that is loaded already.
        pad_token: text of the padding token to use where the tokenizer names none. It may equal the end token: masks
            are built from lengths, never from token ids.

    Raises:
        ModelError: no such folder, no tokenizer in it, no pad token, or a `pad_token` outside the vocabulary.
    """
    tokenizer: Any = path if hasattr(path, "convert_tokens_to_ids") else _tokenizer_from(path)
    if pad_token is not None:
        _set_pad_token(tokenizer, pad_token)
    if tokenizer.pad_token_id is None:
        example = tokenizer.eos_token or "<|pad|>"
        raise ModelError(
            f"the tokenizer of {_name_of(path)} has no pad token, and batches need one; "
            f"say which: pad_token={example!r} (the end token is safe here, masks never look at token ids)"
        )
    return tokenizer


def _tokenizer_from(path: str | os.PathLike[str]) -> Any:
    from transformers import AutoTokenizer

    source = existing_source("tokenizer", path)
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"no tokenizer could be loaded from {source}: {first_line(error)}. "
            f"A tokenizer folder holds tokenizer.json or the files of tokenizer.save_pretrained(folder)."
        ) from error


def _set_pad_token(tokenizer: Any, pad_token: str) -> None:
    if pad_token not in tokenizer.get_vocab():
        raise ModelError(
            f"pad_token={pad_token!r} is not in the tokenizer's vocabulary of {len(tokenizer)} entries; "
            f"take one of its special tokens: {', '.join(map(repr, tokenizer.all_special_tokens)) or 'it has none'}"
        )
    tokenizer.pad_token = pad_token


def load_causal_lm(
    path: str | os.PathLike[str] | nn.Module,
    *,
    dtype: str | torch.dtype = "auto",
    attn_implementation: str | None = None,
) -> Any:
    """A causal LM in safetensors from a local folder.

    Args:
        path: a model folder (or a Hub name, when a connection is allowed); a loaded model is returned as it is,
            converted to `dtype` unless that is "auto".
        dtype: "auto" = that of the files, "float32", "bfloat16", "float16" (also fp32, bf16, fp16), or a torch dtype.
        attn_implementation: passed to transformers; None = its own choice.

    Raises:
        ModelError: missing folder, no causal LM, pickled weights, unknown dtype.
    """
    resolved = resolve_dtype(dtype)
    if isinstance(path, nn.Module):
        return path if resolved == "auto" else path.to(resolved)  # type: ignore[arg-type]
    from transformers import AutoModelForCausalLM

    source = existing_source("model", path)
    _refuse_pickled_weights(source)
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    try:
        return AutoModelForCausalLM.from_pretrained(source, dtype=resolved, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{source} cannot be loaded as a causal language model: {first_line(error)}") from error


def resolve_dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    """A dtype from its name; "auto" stays as it is."""
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    if str(dtype).removeprefix("torch.") not in _DTYPES:
        raise ModelError(f"dtype must be auto, {', '.join(_DTYPES)} or a torch dtype, got {dtype!r}")
    return _DTYPES[str(dtype).removeprefix("torch.")]


def existing_source(kind: str, path: str | os.PathLike[str]) -> str:
    """`path` as text when it is a usable folder or looks like a Hub name and the Hub may be asked."""
    text = os.fspath(path)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if kind == "model" and not (folder / "config.json").is_file():
            found = ", ".join(sorted(item.name for item in folder.iterdir())[:8]) or "nothing"
            raise ModelError(f"{folder} is not a model folder: it has no config.json (found {found})")
        return str(folder)
    if folder.exists():
        raise ModelError(f"{kind} must be a folder as save_pretrained writes it, got the file {folder}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    looks_like_hub = text.count("/") == 1 and not text.startswith((".", "/", "~"))
    if looks_like_hub and not offline:
        return text
    remedy = f" (HF_HUB_OFFLINE is set; fetch it where there is a network: hf download {text} --local-dir FOLDER)"
    raise ModelError(f"{kind} folder {text} does not exist{remedy if looks_like_hub else ''}")


def _refuse_pickled_weights(source: str) -> None:
    folder = Path(source)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(item.name for item in folder.iterdir() if item.suffix in (".bin", ".pt", ".pth", ".pkl"))
    if pickled:
        raise ModelError(
            f"{folder} holds only pickled weights ({pickled[0]}), and unpickling a file can run any code in it; "
            f"convert it once, where you trust it: "
            f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)"
        )
    raise ModelError(f"{folder} holds no weights: expected *.safetensors beside config.json")


def _name_of(path: Any) -> str:
    return os.fspath(path) if isinstance(path, (str, os.PathLike)) else (path.name_or_path or type(path).__name__)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type when it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
