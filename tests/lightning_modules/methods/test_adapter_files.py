"""Adapter folders are checked before anything is attached; a load that fails leaves nothing in the
pipeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.installed_methods import METHODS, draw_with, install_method, prompts_of
from helpers.marks import slow
from safetensors.torch import load_file, save_file

from lightning_modules.backbone.backbone import Backbone
from lightning_modules.backbone.weights import weights_digest
from lightning_modules.methods.adapter_file import AdapterError, AdapterFile, file_digest
from lightning_modules.methods.base import Method


@pytest.fixture(scope="module")
def saved(sd1_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The adapter folder of a method, made once."""
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("adapter")
            method = install_method(name, Backbone(deepcopy(sd1_pipeline), "sd1"))
            method.save_adapter(made[name])
        return made[name]

    return folder_of


def copy_of(folder: Path, target: Path, change: Callable[[Path, dict[str, Any]], None]) -> Path:
    """The folder with its card changed, or more of it; ``change`` gets its path and the card."""
    target.mkdir()
    for name in ("adapter.safetensors", "adapter.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    card = json.loads((target / "adapter.json").read_text())
    change(target, card)
    if (target / "adapter.json").exists():
        (target / "adapter.json").write_text(json.dumps(card))
    return target


def put(*keys: str, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    def change(folder: Path, card: dict[str, Any]) -> None:
        for key in keys[:-1]:
            card = card[key]
        card[keys[-1]] = value

    return change


def rewrite(change: Callable[[dict[str, Any]], Any], signed: bool = True) -> Any:
    """Changes the tensors; ``signed``: the card has their new digest."""

    def act(folder: Path, card: dict[str, Any]) -> None:
        path = folder / "adapter.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        if signed:
            card["sha256"] = file_digest(path)

    return act


def first(tensors: dict[str, Any]) -> str:
    return sorted(tensors)[0]


def fill(value: float) -> Any:
    return rewrite(lambda tensors: tensors[first(tensors)].fill_(value))


def cut(folder: Path, card: dict[str, Any]) -> None:
    path = folder / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without(name: str) -> Callable[[Path, dict[str, Any]], None]:
    return lambda folder, card: (folder / name).unlink()


GATE = ("config", "gate")
TENSORS, CARD = r"adapter\.safetensors", r"adapter\.json"
# What is wrong -> the change, and what the one line says
FAULTS: dict[str, tuple[Any, str]] = {
    "mode": (put(*GATE, "mode", value="sof"), f"{CARD}.*expected one of hard, soft.*mean soft"),
    "threshold": (put(*GATE, "threshold", value=1e308), f"threshold=1e.308.*{CARD}.*below 1"),
    "threshold nan": (
        put(*GATE, "threshold", value=float("nan")),
        f"threshold=nan.*{CARD}.*expected a number",
    ),
    "width beyond all": (
        put(*GATE, "width", value=10**12),
        f"method.gate.width=10+ .*{CARD}.*at most 65,536",
    ),
    "width": (put(*GATE, "width", value=10**4), f"{CARD}: method.gate.width=10+: .*at most"),
    "depth": (put(*GATE, "depth", value=10**2), f"{CARD}: method.gate.depth=10+: .*at most"),
    "other width": (put(*GATE, "width", value=8), f"{TENSORS} does not fit: .*expected"),
    "text": (put(*GATE, "width", value="wide"), f"width=wide.*{CARD}.*expected an integer"),
    "unknown": (put(*GATE, "wdith", value=1), f"wdith=1.*{CARD}.*did you mean method.gate.width"),
    "section": (put("config", "masks", value={}), f"{CARD}: config has 'masks'"),
    "no config": (put("config", value=[1]), f"{CARD}: config="),
    "method": (put("method", value="maskatn"), f"{CARD}: method='maskatn' is unknown"),
    "resolution": (put("resolution", value=-64), f"resolution=-64.*{CARD}.*at least 8"),
    "resolution 65": (put("resolution", value=65), f"{CARD}: backbone.resolution=65"),
    "resolution big": (put("resolution", value=8 * 10**3), f"{CARD}: resolution=8.*at most"),
    "family": (put("backbone", "family", value="PixArt"), f"{CARD}.*family PixArt.*has Stable"),
    "widths": (put("backbone", "widths", value=["320x768"]), f"{CARD}.*widths .*320x768"),
    "backbone": (put("backbone", value="sd1"), f"{CARD}: backbone='sd1'"),
    "source": (put("backbone", "source", value={}), f"{CARD}: backbone.source={{}}: expected a"),
    "revision": (put("backbone", "revision", value=1.5), f"{CARD}: backbone.revision=1.5: exp"),
    "nan": (fill(float("nan")), f"{TENSORS}: heads.* not finite"),
    "beyond the type": (
        rewrite(lambda t: t.update({first(t): t[first(t)].double().fill_(1e300)})),
        f"{TENSORS}: heads.* not finite as float32",
    ),
    "lines": (put(*GATE, "x\ny", value=1), f"method.gate.x y=1 .*{CARD}"),
    "infinite": (fill(float("inf")), f"{TENSORS}: heads.* not finite"),
    "other file": (rewrite(lambda t: t[first(t)].add_(1), signed=False), f"{TENSORS} is not the"),
    "renamed": (rewrite(lambda t: t.update(x=t.pop(first(t)))), f"{TENSORS} does not fit"),
    "integers": (
        rewrite(lambda t: t.update({first(t): t[first(t)].int()})),
        f"{TENSORS} does not fit: .*I32, expected",
    ),
    "cut off": (cut, f"{TENSORS} cannot be read"),
    "no tensors": (without("adapter.safetensors"), f"{TENSORS} is missing"),
    "no card": (without("adapter.json"), f"is no adapter: it has no {CARD}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_right_is_refused_in_one_line(
    fault: str, saved: Callable[[str], Path], sd1: Backbone, tmp_path: Path
):
    change, line = FAULTS[fault]
    folder = copy_of(saved("gates"), tmp_path / "adapter", change)
    before = {name: id(value) for name, value in sd1.unet.attn_processors.items()}
    with pytest.raises(AdapterError, match=line) as error:
        Method.load_adapter(folder, sd1)
    assert "\n" not in str(error.value)
    assert {name: id(value) for name, value in sd1.unet.attn_processors.items()} == before


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("low rank", ("separate", "scale"), 1e308),
        ("low rank", ("separate", "test_time"), 10**6),
        ("mask tokens", ("masks", "token_scale"), 1e308),
    ],
)
def test_what_drawing_multiplies_with_or_repeats_is_bounded(
    saved: Callable[[str], Path], tmp_path: Path, name: str, keys: tuple[str, str], value: float
):
    folder = copy_of(saved(name), tmp_path / "changed", put("config", *keys, value=value))
    with pytest.raises(AdapterError, match=rf"method\.{'.'.join(keys)}=.*{CARD}.*at most"):
        AdapterFile.open(folder)


def test_settings_that_do_not_go_together_are_refused_with_the_card(
    saved: Callable[[str], Path], tmp_path: Path
):
    scaled = put("config", "separate", "scale", value=1e6)
    folder = copy_of(saved("low rank"), tmp_path / "scaled", scaled)
    with pytest.raises(AdapterError, match=rf"{CARD}: .*scale=1e.06 with method.weights.rank=4"):
        AdapterFile.open(folder)

    def even_kernel(_: Path, card: dict[str, Any]) -> None:
        card["config"]["separate"] |= {"test_time": 5, "kernel": 2}

    with pytest.raises(AdapterError, match=rf"{CARD}: method.separate.kernel=2 has no middle"):
        AdapterFile.open(copy_of(saved("low rank"), tmp_path / "even", even_kernel))


def test_what_the_backbone_holds_is_no_fault_of_the_file(
    saved: Callable[[str], Path], sd1: Backbone
):
    folder = saved("low rank")
    method = Method.load_adapter(folder, sd1)
    with pytest.raises(AdapterError, match="holds other trained weights.*remove()") as error:
        Method.load_adapter(folder, sd1)
    assert str(error.value).startswith(str(folder)) and "rank" not in str(error.value)
    method.remove()
    sd1.pipeline.enable_attention_slicing()
    with pytest.raises(AdapterError, match=r"SlicedAttnProcessor.*disable_attention_slicing\(\)"):
        Method.load_adapter(saved("gates"), sd1)
    sd1.pipeline.disable_attention_slicing()
    Method.load_adapter(saved("gates"), sd1).remove()


@pytest.mark.slow
def test_low_rank_subjects_beside_others(saved: Callable[[str], Path], sd1: Backbone):
    Method.load_adapter(saved("low rank"), sd1)
    with pytest.raises(AdapterError, match="holds other trained weights"):
        Method.load_adapter(saved("low-rank subjects"), sd1)


def test_a_folder_below_the_home_of_a_user(
    saved: Callable[[str], Path], sd1: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    method = Method.load_adapter(saved("low rank"), sd1)
    method.save_adapter("~/ad")
    assert {"adapter.json", "stock"} <= {path.name for path in (tmp_path / "ad").iterdir()}
    assert not (tmp_path / "~").exists()
    method.load_weights("~/ad")
    assert AdapterFile.open("~/ad").method == "separate_enhance"
    with pytest.raises(ValueError, match="there is no user nobody-here"):
        AdapterFile.open("~nobody-here/ad")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_card_that_is_no_mapping_is_refused(
    text: str, saved: Callable[[str], Path], sd1: Backbone, tmp_path: Path
):
    folder = copy_of(saved("gates"), tmp_path / "adapter", lambda *_: None)
    (folder / "adapter.json").write_text(text)
    with pytest.raises(AdapterError, match=CARD):
        Method.load_adapter(folder, sd1)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("low rank", put("config", "weights", "rank", value=10**4)),
        *slow(("low-rank subjects", put("config", "weights", "rank", value=10**4))),
        *slow(("mask tokens", put("config", "masks", "encoder", value="conv"))),
        *slow(("subjects", put("config", "subjects", "tokens", value=["<a>", "<b>"]))),
        *slow(("subjects", put("config", "subjects", "tokens", value=["circle"]))),
        *slow(*((name, fill(float("nan"))) for name in METHODS)),
    ],
)
def test_a_load_that_fails_leaves_the_pipeline_as_it_was(
    name: str, change: Any, saved: Callable[[str], Path], sd1: Backbone, tmp_path: Path
):
    plain = draw_with(sd1.pipeline)
    with pytest.raises(AdapterError):
        Method.load_adapter(copy_of(saved(name), tmp_path / "adapter", change), sd1)
    assert torch.equal(draw_with(sd1.pipeline), plain)
    loaded = Method.load_adapter(saved(name), sd1)  # Nothing is in its way
    assert not torch.equal(draw_with(sd1.pipeline, prompts_of(name)), plain)
    loaded.remove()
    assert torch.equal(draw_with(sd1.pipeline), plain)


@pytest.mark.parametrize(
    "name", ["mask tokens", *slow(*(n for n in METHODS if n != "mask tokens"))]
)
def test_attaching_that_fails_half_way_leaves_the_pipeline_as_it_was(
    name: str, saved: Callable[[str], Path], sd1: Backbone, monkeypatch: pytest.MonkeyPatch
):
    """Whatever a method had put in when it failed."""
    from lightning_modules.methods.registry import method_class

    folder, plain = saved(name), draw_with(sd1.pipeline)
    state = {n: id(p) for n, p in sd1.unet.named_parameters()}
    create = method_class(METHODS[name][0])
    install = create.install

    def fail(self: Any) -> None:
        install(self)
        self.backbone.pipeline.tokenizer = None
        raise OSError("no space left")

    monkeypatch.setattr(create, "install", fail)
    with pytest.raises(OSError, match="no space"):
        Method.load_adapter(folder, sd1)
    monkeypatch.undo()
    assert {n: id(p) for n, p in sd1.unet.named_parameters()} == state
    assert not sd1.unet._forward_pre_hooks and torch.equal(draw_with(sd1.pipeline), plain)
    Method.load_adapter(folder, sd1)


def test_weights_of_an_installed_method_stay_where_a_folder_is_refused(
    saved: Callable[[str], Path], sd1: Backbone, tmp_path: Path
):
    method = install_method("gates", sd1)
    before = draw_with(sd1.pipeline)
    with pytest.raises(AdapterError, match="not finite"):
        method.load_weights(copy_of(saved("gates"), tmp_path / "nan", fill(float("nan"))))
    with pytest.raises(AdapterError, match="expected one of hard"):
        method.load_weights(copy_of(saved("gates"), tmp_path / "mode", FAULTS["mode"][0]))
    assert torch.equal(draw_with(sd1.pipeline), before)


def test_older_cards_and_other_sources_are_accepted(
    saved: Callable[[str], Path],
    sd1_pipeline: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    def age(folder: Path, card: dict[str, Any]) -> None:
        for key in ("family", "widths"):
            del card["backbone"][key]
        del card["sha256"], card["config"]["gate"]["keep"]
        card["config"]["gate"]["surrogate"] = "secant"  # Its names before
        del card["config"]["gate"]["gradient"]

    folder = copy_of(saved("gates"), tmp_path / "old", age)
    with caplog.at_level(logging.WARNING):
        same = Method.load_adapter(folder, Backbone(deepcopy(sd1_pipeline), "sd1"))
    assert same.config.gate.gradient == "finite_difference" and same.config.gate.keep == 0.5
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        Method.load_adapter(folder, Backbone(deepcopy(sd1_pipeline), "/my/sd1", "abc"))
    (record,) = caplog.records
    assert "trained with the backbone 'sd1'" in record.message
    assert "this one is '/my/sd1' at revision 'abc'" in record.message


def test_a_card_names_the_digest_of_its_tensors(saved: Callable[[str], Path]):
    folder = saved("gates")
    card = json.loads((folder / "adapter.json").read_text())
    assert card["sha256"] == file_digest(folder / "adapter.safetensors")
    assert card["backbone"]["family"].startswith("Stable Diffusion 1")


def test_an_adapter_of_other_weights_of_a_shipped_backbone_is_refused(
    sd1_pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Of an earlier version's world: by the digest that its card says, or since it says none."""
    made = tmp_path / "made"
    install_method("gates", Backbone(deepcopy(sd1_pipeline), "embedded")).save_adapter(made)
    card = json.loads((made / "adapter.json").read_text())
    assert card["backbone"]["weights"] == (now := weights_digest("embedded"))
    Method.load_adapter(made, Backbone(deepcopy(sd1_pipeline), "embedded")).remove()

    other = copy_of(made, tmp_path / "other", put("backbone", "weights", value="0123abcd"))
    none = copy_of(made, tmp_path / "none", lambda _, card: card["backbone"].pop("weights"))
    for folder, said in ((other, "digest 0123abcd"), (none, "an earlier version")):
        for name in ("embedded", "embedded_strong"):
            backbone = Backbone(deepcopy(sd1_pipeline), name)
            line = rf"{CARD}: .*'embedded' of {said}; expected .*digest {now}: train it again"
            with pytest.raises(AdapterError, match=line) as error:
                Method.load_adapter(folder, backbone)
            assert "\n" not in str(error.value)
            assert not backbone.unet._forward_pre_hooks
            method = install_method("gates", backbone)
            with pytest.raises(AdapterError, match=line):
                method.load_weights(folder)
    # The folder of its weights may be anywhere
    with caplog.at_level(logging.WARNING):
        Method.load_adapter(other, Backbone(deepcopy(sd1_pipeline), "/weights/of/then"))
    assert "this one is '/weights/of/then'" in caplog.text
