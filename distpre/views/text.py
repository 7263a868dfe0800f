"""Ops on text: choose a caption, make token ids of it. Tokenizers are the libraries' own."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy as np

from distpre.errors import RecipeError


class Tokenizer(Protocol):
    def __call__(self, text: str) -> np.ndarray:
        """int64 ids (n,): of one length for all texts, or the text's own (then batches are Padded)."""


@dataclass(frozen=True)
class OneOf:
    """One of several captions: of a list, or of a text's lines."""

    def __call__(self, value: str | list[str], rng: np.random.Generator) -> str:
        captions = value.splitlines() if isinstance(value, str) else value
        if not captions:
            raise ValueError("one_of: the sample has no caption")
        return captions[rng.integers(len(captions))]


@dataclass(frozen=True)
class Say:
    """What json says under `key`, in one of some phrases, in one of `templates`, {} is the phrase; a text stays itself.

    phrases: {value: [phrases]}. A value without phrases is an error: the sample is bad.
    """

    key: str
    phrases: dict[str, list[str]]
    templates: list[str] = field(default_factory=lambda: ["{}"])

    def __call__(self, value: dict[str, Any] | str, rng: np.random.Generator) -> str:
        if isinstance(value, str):  # a prompt
            return value
        phrases = self.phrases[value[self.key]]
        template = self.templates[rng.integers(len(self.templates))]
        return template.replace("{}", phrases[rng.integers(len(phrases))])


@dataclass(frozen=True)
class Eda:
    """One of EDA's four ops on words, drawn evenly: synonyms, insertion, swap, deletion (Wei & Zou 2019, section 2).

    share: of the words that change (the paper's alpha), at least one; a deletion takes each word with this probability.
    synonyms: {word: [others]}, without which captions are swapped and deleted from only. The paper takes WordNet's.
    """

    share: float = 0.1
    synonyms: dict[str, list[str]] = field(default_factory=dict)

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        words = text.split()
        if len(words) < 2:
            return text
        times = max(1, int(self.share * len(words)))
        known = [i for i, word in enumerate(words) if word.lower() in self.synonyms]
        op = rng.choice(["replace", "insert", "swap", "delete"] if known else ["swap", "delete"])
        if op == "delete":
            kept = rng.random(len(words)) >= self.share
            kept[rng.integers(len(words))] |= not kept.any()
            return " ".join(word for word, stays in zip(words, kept, strict=True) if stays)
        if op == "swap":
            for _ in range(times):
                i, j = rng.choice(len(words), 2, replace=False)
                words[i], words[j] = words[j], words[i]
            return " ".join(words)
        chosen = rng.choice(known, min(times, len(known)), replace=False)
        for i in sorted(chosen, reverse=True):  # an insertion moves only the words after the place that it came from
            other = str(rng.choice(self.synonyms[words[i].lower()]))
            if op == "replace":
                words[i] = other
            else:
                words.insert(int(rng.integers(len(words) + 1)), other)
        return " ".join(words)


@dataclass(frozen=True)
class Tokenize:
    tokenizer: Tokenizer

    def __call__(self, text: str, rng: np.random.Generator) -> np.ndarray:
        return self.tokenizer(text)


@dataclass(frozen=True)
class OpenClipTokenizer:
    """open_clip's byte-pair tokenizer, or the one of a named open_clip model; ids (context_length,)."""

    context_length: int | None = None
    model: str | None = None

    def __call__(self, text: str) -> np.ndarray:
        return open_clips(self.model)([text], self.context_length)[0].numpy()


@cache
def open_clips(model: str | None) -> Any:
    """One for all views of a process: it takes a third of a second to make."""
    import open_clip

    return open_clip.get_tokenizer(model) if model else open_clip.SimpleTokenizer()


@dataclass(frozen=True)
class TransformersTokenizer:
    """The tokenizer of a transformers folder (or hub name with fetch: true); ids of the text's own length."""

    model: str
    context_length: int
    fetch: bool = False
    _made: list[Any] = field(default_factory=list, init=False, repr=False)

    def __call__(self, text: str) -> np.ndarray:
        ids = self._tokenizer()(text, truncation=True, max_length=self.context_length)["input_ids"]
        return np.asarray(ids, dtype=np.int64)

    def _tokenizer(self) -> Any:
        if not self._made:
            from transformers import AutoTokenizer

            try:
                self._made.append(AutoTokenizer.from_pretrained(self.model, local_files_only=not self.fetch))
            except (OSError, ValueError) as e:
                raise RecipeError(
                    f"the tokenizer of {self.model!r} cannot be read: {str(e).splitlines()[0]}",
                    "Give a local folder, or `fetch: true`.",
                ) from e
        return self._made[0]


@dataclass(frozen=True)
class NgramTokenizer:
    """Words and the n-grams of their characters, hashed: any language, and nothing to learn or to fetch.

    ids of the text's own length, 1 to buckets, at most context_length; each word, then its n-grams of "<word>"
    (fastText, Bojanowski et al. 2017, section 3.2). Case and punctuation are left out; a text without a word is [0].
    """

    buckets: int
    context_length: int
    n: int = 3

    def __call__(self, text: str) -> np.ndarray:
        ids = [i for word in re.findall(r"\w+", text.lower()) for i in _hashed(word, self.n, self.buckets)]
        return np.asarray(ids[: self.context_length] or [0], dtype=np.int64)


@lru_cache(maxsize=1 << 16)
def _hashed(word: str, n: int, buckets: int) -> list[int]:
    framed = f"<{word}>"
    grams = [framed[i : i + n] for i in range(len(framed) - n + 1)]
    return [1 + zlib.crc32(gram.encode()) % buckets for gram in (word, *grams)]
