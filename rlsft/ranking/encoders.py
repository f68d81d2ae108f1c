"""Texts to unit vectors: the sentence encoder that measures how close two answers are."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rlsft.artifacts import atomic_path
from rlsft.errors import ConfigError, DataError, ModelError

Float = TypeVar("Float", np.float32, np.float64)

logger = logging.getLogger(__name__)


@runtime_checkable
class Encoder(Protocol):
    """Texts to float32 [n, d] rows of length 1, with a name for messages and the languages it knows (None: unsaid)."""

    name: str
    languages: tuple[str, ...] | None

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


EncoderSpec = Encoder | Callable[[Sequence[str]], Any] | str | os.PathLike[str] | None


class TransformerEncoder:
    """Any Hugging Face encoder folder: mean of the last hidden states over the mask, scaled to length 1.

    Equals sentence-transformers for its mean-pooling models (all-MiniLM-L6-v2 among them). Texts run in batches of
    similar length and come back in their own order; longer texts than `max_length` tokens are cut.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        languages: tuple[str, ...] | None = None,
        device: str | None = None,  # None: CUDA where there is one
        batch_size: int = 32,
        max_length: int = 256,  # tokens
        show_progress: bool = False,
    ) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise ModelError(f"encoder: {self.path} is not a model folder (it has no config.json)")
        self.name = name or self.path.name
        self.languages = languages if languages is not None else _card_languages(self.path)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch_size, self.max_length, self.show_progress = batch_size, max_length, show_progress
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self.path)
            self._model = AutoModel.from_pretrained(self.path, dtype=torch.float32).eval().to(self.device)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"encoder: cannot load {self.path} as an encoder: {error}") from error

    @property
    def fingerprint(self) -> str:
        """Changes when the model's files do: part of the cache key."""
        files = sorted(self.path.glob("*.safetensors")) + sorted(self.path.glob("*.bin"))
        marks = [f"{file.name}:{file.stat().st_size}:{file.stat().st_mtime_ns}" for file in files]
        return "|".join([(self.path / "config.json").read_text(encoding="utf-8"), str(self.max_length), *marks])

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not len(texts):
            return np.zeros((0, self._model.config.hidden_size), np.float32)
        order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))
        starts = range(0, len(order), self.batch_size)
        if self.show_progress:
            from rich.progress import track

            rows = [self._embed(texts, order[at : at + self.batch_size]) for at in track(starts, "Embedding")]
        else:
            rows = [self._embed(texts, order[at : at + self.batch_size]) for at in starts]
        embeddings = np.concatenate(rows)
        return embeddings[np.argsort(order)]

    def _embed(self, texts: Sequence[str], batch: list[int]) -> NDArray[np.float32]:
        import torch
        import torch.nn.functional as F

        inputs = self._tokenizer(
            [texts[index] for index in batch],
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        ).to(self.device)
        with torch.inference_mode():
            hidden = self._model(**inputs).last_hidden_state
            keep = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * keep).sum(1) / keep.sum(1).clamp(min=1e-9)
            return F.normalize(pooled, dim=-1).float().cpu().numpy()


class FunctionEncoder:
    """Your own function as an encoder: its rows are scaled to length 1."""

    def __init__(
        self,
        function: Callable[[Sequence[str]], Any],
        *,
        name: str | None = None,
        languages: tuple[str, ...] | None = None,
    ) -> None:
        self._function = function
        self.name = str(name or getattr(function, "name", None) or getattr(function, "__name__", "custom"))
        self.languages = languages if languages is not None else getattr(function, "languages", None)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return unit_rows(np.asarray(self._function(texts), dtype=np.float32))


class CachedEncoder:
    """Keeps what `encoder` returned in files under `folder`, keyed by the sha256 of the model and the texts."""

    def __init__(self, encoder: Encoder, folder: str | os.PathLike[str]) -> None:
        self._encoder, self._folder = encoder, Path(folder)
        self.name, self.languages = encoder.name, encoder.languages

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        path = self._folder / f"{self._key(texts)}.npy"
        if path.is_file():
            return np.load(path)
        embeddings = self._encoder(texts)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.save(file, embeddings)
        return embeddings

    def _key(self, texts: Sequence[str]) -> str:
        digest = hashlib.sha256(self.name.encode())
        digest.update(getattr(self._encoder, "fingerprint", "").encode())
        for text in texts:
            digest.update(len(text).to_bytes(8, "little") + text.encode())
        return digest.hexdigest()


def load_encoder(spec: EncoderSpec, *, cache_dir: str | os.PathLike[str] | None = None) -> Encoder | None:
    """The encoder that `spec` names.

    Args:
        spec: None (word overlap, no model), "minilm" (all-MiniLM-L6-v2 from the demo packages, English), a model
            folder, an `Encoder`, or a function from texts to [n, d].
        cache_dir: folder that keeps embeddings between runs; a function without a name of its own shares one
            key space, so give it a `name` when you cache.

    Raises:
        ModelError: the folder is no encoder. ConfigError: `spec` is none of these.
    """
    encoder = _make_encoder(spec)
    return encoder if encoder is None or cache_dir is None else CachedEncoder(encoder, cache_dir)


def _make_encoder(spec: EncoderSpec) -> Encoder | None:
    if spec is None or isinstance(spec, (TransformerEncoder, FunctionEncoder, CachedEncoder)):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        if os.fspath(spec) == "minilm":
            from rlsft.data import assets

            return TransformerEncoder(assets.sentence_encoder_path(), name="minilm", languages=("en",))
        if not Path(spec).is_dir():
            raise ConfigError(
                f"encoder must be None, 'minilm', a model folder or a function, got {os.fspath(spec)!r}, "
                f"which is not a folder here"
            )
        return TransformerEncoder(spec)
    if callable(spec):
        return FunctionEncoder(spec)
    raise ConfigError(f"encoder must be None, 'minilm', a model folder or a function, got {type(spec).__name__}")


def embed(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """[n, d] float32 unit rows of `texts`, each distinct text embedded once so that equal texts get equal rows.

    Raises:
        DataError: the encoder returned another shape, NaN or infinity; the message names it and the text.
    """
    distinct = list(dict.fromkeys(texts))
    rows = np.asarray(encoder(distinct), dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(distinct):
        raise DataError(
            f"encoder {encoder.name!r} must return one row a text: [{len(distinct)}, d], got {list(rows.shape)}"
        )
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise DataError(
            f"encoder {encoder.name!r} returned NaN or infinity for {bad.size} of {len(distinct)} texts, first for "
            f"{_snippet(distinct[bad[0]])!r}; check the encoder (half precision overflows) or use another"
        )
    position = {text: index for index, text in enumerate(distinct)}
    return unit_rows(rows)[[position[text] for text in texts]]


def unit_rows(rows: NDArray[Float]) -> NDArray[Float]:
    """Rows scaled to length 1 in their own dtype; a zero row stays zero (its cosine with everything is 0)."""
    norms = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1.0)).astype(rows.dtype)


def language_warning(encoder: Encoder | None, language: str) -> str | None:
    """A sentence when the encoder is not made for `language`, logged once a process; None when all is well."""
    if encoder is None or not encoder.languages or language in encoder.languages:
        return None
    text = (
        f"encoder {encoder.name!r} was made for {', '.join(encoder.languages)}, not for {language!r}: its distances "
        f"mean little there. Use a multilingual encoder folder, or encoder=None for word overlap"
    )
    _log_once(text)
    return text


@functools.cache
def _log_once(text: str) -> None:
    logger.warning("%s", text)


def _card_languages(folder: Path) -> tuple[str, ...] | None:
    """Languages from the front matter of the model card, None where it names none (or "multilingual")."""
    import yaml

    card = folder / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        fields = yaml.safe_load(front.group(1)) if front else None
    except yaml.YAMLError:
        return None
    named = fields.get("language") if isinstance(fields, dict) else None
    codes = tuple(str(code).lower() for code in ([named] if isinstance(named, str) else named or ()))
    return None if not codes or "multilingual" in codes else codes


def _snippet(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
