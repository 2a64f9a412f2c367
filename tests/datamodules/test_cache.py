"""Cached latents and texts: the keys they stand under, mirror images, captions that are dropped,
and files that cannot be encoded."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules import cache
from datamodules.cache import TextCache, cache_latents, latent_facts, text_facts
from datamodules.formats.index import DataError

FACTS: dict[str, Any] = {
    "fingerprint": "abc",
    "dtype": "float32",
    "resolution": 8,
    "crop": "centre",
    "files": "f1",
}
CAPTIONS = [
    "a red circle",
    "a blue square",
    "a red circle",
    "ein grüner Würfel",
    "a dog",
    "two dogs",
]


class Images:
    """Image i has the value i, and a bright left half."""

    encodable = 5

    def image(self, index: int, /) -> torch.Tensor:
        image = torch.full((3, 8, 8), float(index))
        image[..., :4] += 100
        return image


def encode(images: torch.Tensor) -> torch.Tensor:
    """[B, 3, 8, 8] -> [B, 2, 4, 4]; what lies left counts for more, so that a mirror image's
    latents are not the mirrored latents."""
    weighted = images * torch.linspace(2, 1, 8)
    return torch.nn.functional.avg_pool2d(weighted, 2)[:, :2]


def encode_texts(texts: list[str]) -> dict[str, torch.Tensor]:
    hidden = torch.stack([torch.arange(6.0).view(3, 2) + 10 * len(text) for text in texts])
    return {
        "hidden": hidden,
        "pooled": hidden.sum(1),
        "kinds": torch.tensor([[len(text), 1] for text in texts], dtype=torch.uint8),
    }


def never(_: Any) -> Any:
    raise AssertionError("this was encoded already")


def test_every_fact_has_its_own_key():
    changed = {
        "fingerprint": "abd",
        "dtype": "bfloat16",
        "resolution": 16,
        "crop": "none",
        "files": "f2",
        "flips": True,
    }
    assert list(inspect.signature(latent_facts).parameters) == list(changed)
    several = [
        latent_facts(**FACTS),
        *(latent_facts(**{**FACTS, key: value}) for key, value in changed.items()),
    ]
    several += [
        text_facts("abc", "float32"),
        text_facts("abd", "float32"),
        text_facts("abc", "bfloat16"),
    ]
    assert all(one != other for i, one in enumerate(several) for other in several[:i])


def test_latents_are_those_of_the_images(tmp_path: Path):
    rows = cache_latents(tmp_path, latent_facts(**FACTS), Images(), encode, batch=2)
    images = torch.stack([Images().image(i) for i in range(5)])
    assert rows.shape == (5, 2, 4, 4)
    assert torch.equal(rows.gather(range(5)), encode(images))
    assert torch.equal(
        cache_latents(tmp_path, latent_facts(**FACTS), Images(), never)[3], encode(images)[3]
    )


def test_flips_are_encoded_not_mirrored(tmp_path: Path):
    plain = cache_latents(tmp_path, latent_facts(**FACTS), Images(), encode)
    both = cache_latents(tmp_path, latent_facts(**FACTS, flips=True), Images(), encode, batch=2)
    assert both.shape == (5, 2, 2, 4, 4)
    for i in range(5):
        image = Images().image(i)[None]
        assert torch.equal(both[i], torch.stack([plain[i], encode(image.flip(-1))[0]]))
        assert not torch.equal(both[i][1], plain[i].flip(-1))


def test_latents_that_are_not_finite_name_their_file(tmp_path: Path):
    def overflows(images: torch.Tensor) -> torch.Tensor:
        latents = encode(images)
        return latents.where(images[:, :1, -1:, -1:] != 3, torch.inf)

    with pytest.raises(
        DataError, match=(r"^train/3\.jpg.*: its latents are not " r"finite.*backbone\.dtype")
    ):
        cache_latents(
            tmp_path,
            latent_facts(**FACTS),
            Images(),
            overflows,
            where=lambda i: Path(f"train/{i}.jpg"),
        )
    assert not list(tmp_path.rglob("*.safetensors"))


class HalfBroken(Images):
    def image(self, index: int, /) -> torch.Tensor:
        if index in (0, 3):
            raise DataError(f"train/{index}.jpg: image cannot be decoded")
        return super().image(index)


def test_images_that_cannot_be_decoded_are_broken_from_the_cache_too(tmp_path: Path):
    lines: list[str] = []

    def latents(dataset: Any, on_error: str, encode: Any = encode) -> cache.Latents:
        names: dict[str, Any] = {
            "where": "train/{}.jpg".format,
            "on_error": on_error,
            "emit": lambda text, share: lines.append(text),
        }
        return cache_latents(tmp_path, latent_facts(**FACTS), dataset, encode, **names)

    with pytest.raises(DataError, match=r"^train/0\.jpg: image cannot be decoded"):
        latents(HalfBroken(), "raise")
    for rows in (
        latents(HalfBroken(), "skip"),
        pickle.loads(pickle.dumps(latents(Images(), "skip", never))),
    ):
        assert rows.broken == {0: "train/0.jpg", 3: "train/3.jpg"}
        assert torch.equal(
            rows.gather([1, 2, 4]), encode(torch.stack([Images().image(i) for i in (1, 2, 4)]))
        )
        for ask in (lambda: rows[3], lambda: rows[-2], lambda: rows.gather([1, 3])):  # noqa: B023
            with pytest.raises(DataError, match=r"^train/3\.jpg: image could not be decoded"):
                ask()
        with pytest.raises(IndexError):
            rows[5]
    assert "latents: train/3.jpg cannot be decoded" in lines
    with pytest.raises(DataError, match=r"^train/0\.jpg: image could not be decoded"):
        latents(Images(), "raise", never)


def test_texts_are_encoded_once_and_found_by_what_they_say(tmp_path: Path):
    calls: list[str] = []

    def counted(texts: list[str]) -> dict[str, torch.Tensor]:
        calls.extend(texts)
        return encode_texts(texts)

    texts = TextCache.fill(tmp_path, text_facts("abc", "float32"), CAPTIONS, counted, batch=2)
    again = TextCache.fill(tmp_path, text_facts("abc", "float32"), reversed(CAPTIONS), never)
    assert sorted(calls[1:]) == sorted({*CAPTIONS, ""})  # the first is tried to learn what a row is
    asked = ["two dogs", "", "ein grüner Würfel", "two dogs"]
    for one in (texts, again):
        found = one.get(asked)
        assert {name: tensor.tolist() for name, tensor in found.items()} == {
            n: t.tolist() for n, t in encode_texts(asked).items()
        }
        assert len(one) == 6 and "a dog" in one and "a cat" not in one and "zzz" not in one
        with pytest.raises(LookupError, match="'a cat' is not in the cache of 6 texts"):
            one.get(["a dog", "a cat"])


def test_other_texts_or_encoders_are_another_cache(tmp_path: Path):
    def folder(fingerprint: str, texts: list[str]) -> Path:
        return TextCache.fill(
            tmp_path, text_facts(fingerprint, "float32"), texts, encode_texts
        ).path.parent

    assert (
        len(
            {
                folder("abc", CAPTIONS),
                folder("abd", CAPTIONS),
                folder("abc", [*CAPTIONS[:-1], "three dogs"]),
            }
        )
        == 3
    )
    # The first caption stands there twice: without it the texts are the same.
    assert folder("abc", CAPTIONS) == folder("abc", CAPTIONS[1:])
    assert folder("abc", CAPTIONS) == folder("abc", [*CAPTIONS, ""])


def test_texts_that_are_not_finite_are_named(tmp_path: Path):
    def overflows(texts: list[str]) -> dict[str, torch.Tensor]:
        found = encode_texts(texts)
        return {
            **found,
            "hidden": found["hidden"].where(
                torch.tensor([t != "a dog" for t in texts])[:, None, None], torch.nan
            ),
        }

    with pytest.raises(DataError, match=r"^'a dog'.*: its hidden are not finite"):
        TextCache.fill(tmp_path, text_facts("abc", "float32"), CAPTIONS, overflows)


class Captions(Dataset):
    def __init__(self, texts: TextCache) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(CAPTIONS)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.texts.get([CAPTIONS[index]])["hidden"][0]


@pytest.mark.slow
def test_texts_are_light_and_work_in_worker_processes(tmp_path: Path):
    many = [f"caption {i}" for i in range(500)]
    texts = TextCache.fill(tmp_path, text_facts("abc", "float32"), CAPTIONS + many, encode_texts)
    texts.get(many)
    assert len(pickle.dumps(texts)) < 2000
    loader = DataLoader(Captions(texts), batch_size=2, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), encode_texts(CAPTIONS)["hidden"])


@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_a_list_of_texts_that_was_cut_off_is_named_and_made_again(
    tmp_path: Path, share: float
) -> None:
    def encode(texts: list[str]) -> dict[str, torch.Tensor]:
        return {"hidden": torch.tensor([[float(len(text))] for text in texts])}

    def fill() -> TextCache:
        return TextCache.fill(tmp_path, text_facts("x", "float32"), ["a", "bb", "ccc"], encode)

    cache = fill()
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"texts.npy cannot be read .*computes it again"):
        cache.get(["bb"])
    again = fill()
    assert again.path == cache.path and again.path.read_bytes() == whole
    assert again.get(["bb", "a"])["hidden"].flatten().tolist() == [2.0, 1.0]
