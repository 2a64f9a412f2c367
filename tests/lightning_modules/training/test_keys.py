"""Keys of adapters and images: what changes them, and what does not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from conf import load as conf
from conf.schema import Run
from conf.spec import methods
from lightning_modules.training import keys, versions
from lightning_modules.training.checks import check

CONFIGS = {
    f"{method} on {data}": conf.replace(Run(), {"method.name": method, "data.name": data})
    for method in methods()
    for data in ("shapes", "flickr30k", "scene")
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sources, in another folder."""
    root = tmp_path_factory.mktemp("project")
    for package in keys.PACKAGES:
        ignore = shutil.ignore_patterns("assets", "__pycache__")
        shutil.copytree(keys.PROJECT / package, root / package, ignore=ignore)
    return root


def codes(project: Path) -> dict[str, str]:
    """The code of all adapters (by method and data set) and images (by method)."""
    keys._code.cache_clear()
    keys.code_version.cache_clear()
    found = {name: keys.training_code(config, project) for name, config in CONFIGS.items()}
    for name, config in CONFIGS.items():
        found[f"images of {name.split()[0]}"] = keys.sampling_code(config, project)
    return found


@cache
def before_edits() -> dict[str, str]:
    return codes(keys.PROJECT)


def changed(copy: Path, edits: dict[str, Callable[[str], str]]) -> set[str]:
    """Which keys are others while files (or all: ``*``) are edited."""
    before, texts = before_edits(), {}
    for name, edit in edits.items():
        for path in copy.rglob("*.py") if name == "*" else [copy / name]:
            texts.setdefault(path, path.read_text(encoding="utf-8"))
            path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")
    after = codes(copy)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return {name for name in before if before[name] != after[name]}


def sub(pattern: str, to: str, count: int = 0) -> Callable[[str], str]:
    def edit(text: str) -> str:
        result, done = re.subn(pattern, to, text, count=count, flags=re.M)
        assert done or not count, pattern
        return result

    return edit


def test_a_copy_of_the_project_has_the_same_keys(copy: Path) -> None:
    assert codes(copy) == before_edits()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("losses.denoising", "losses.noise_prediction"),
        ("lightning_modules.attention.functional", "lightning_modules.networks.pure_attention"),
        ("lightning_modules.training.distributed", "lightning_modules.process_group"),
        ("datamodules.loading", "datamodules.formats.sampling"),
    ],
)
def test_moving_a_module_keeps_every_key(copy: Path, old: str, new: str) -> None:
    moved = copy.parent / f"moved-{old}"
    shutil.copytree(copy, moved)
    source, target = (moved / f"{name.replace('.', '/')}.py" for name in (old, new))
    source.rename(target)
    (package, name), (other, name_now) = (each.rsplit(".", 1) for each in (old, new))
    for path in moved.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(rf"from {re.escape(package)} import {name}$", text, re.M):
            text = text.replace(
                f"from {package} import {name}\n", f"from {other} import {name_now}\n"
            )
            text = re.sub(rf"\b{name}\.(?=[a-z])", f"{name_now}.", text)
        path.write_text(re.sub(rf"\b{re.escape(old)}\b", new, text), encoding="utf-8")
    assert codes(moved) == before_edits()


def test_prose_and_imports_for_types_keep_every_key(copy: Path) -> None:
    def prose(text: str) -> str:
        text = re.sub(r"^( *)return ", r"\1# A comment\n\1return ", text, flags=re.M)
        return re.sub(r'^("""|    """)', r"\1Other words. ", text, count=1, flags=re.M)

    def types(text: str) -> str:
        return text + "\nif TYPE_CHECKING:\n    from lightning_modules.methods.mcgm import MCGM\n"

    assert changed(copy, {"*": prose, "losses/denoising.py": types}) == set()


def test_a_formula_changes_the_keys_of_all_who_compute_with_it(copy: Path) -> None:
    edit = {"losses/denoising.py": sub(r"\.square\(\)|\*\* 2", ".abs()", 1)}
    found = changed(copy, edit)
    assert {name for name in before_edits() if "untouched" not in name} <= found


@pytest.mark.parametrize("package", ["metrics", "evaluation", "tracking"])
def test_code_that_only_looks_on_changes_no_key(copy: Path, package: str) -> None:
    files = [*(copy / "lightning_modules" / package).glob("*.py")]
    assert files
    more = {str(path.relative_to(copy)): lambda text: f"{text}\nother = 1\n" for path in files}
    assert changed(copy, more) == set()


def test_a_method_changes_its_own_keys_alone(copy: Path) -> None:
    found = changed(copy, {"lightning_modules/methods/mcgm.py": sub(r"\Z", "x = 1\n")})
    own = {name for name in before_edits() if name.split()[0] == "mcgm"}
    assert found == own | {"images of mcgm"}


def test_what_measures_is_no_part_of_an_adapter_or_an_image() -> None:
    config = Run()
    parts = versions.made_by(config)["code_parts"]
    assert parts.keys() == {"sampling", "training", "method maskattn", "data shapes"}
    untouched = conf.replace(config, {"method.name": "untouched"})
    assert versions.made_by(untouched)["code_parts"].keys() == {"sampling", "method untouched"}


def test_code_of_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match="no module"):
        keys.code_version()


def test_a_data_set_changes_the_adapters_trained_on_it_alone(copy: Path) -> None:
    found = changed(copy, {"datamodules/flickr30k.py": sub(r"\Z", "x = 1\n")})
    assert found == {f"{method} on flickr30k" for method in methods()}


def test_what_a_package_defines_itself_counts(copy: Path) -> None:
    found = changed(
        copy, {"datamodules/shapes/__init__.py": sub(r"\bdef build\(", "def build(a, ", 1)}
    )
    assert {f"{method} on shapes" for method in methods()} <= found
    assert not any(name.startswith("images of") for name in found)


def test_a_data_file_beside_a_module_counts(tmp_path: Path) -> None:
    folder = tmp_path / "losses"
    folder.mkdir()
    (folder / "some.py").write_text('read("words.json")')
    found = []
    for content in ("{}", "[]", "{}"):
        (folder / "words.json").write_text(content)
        keys._code.cache_clear()
        keys.code_version.cache_clear()
        found.append(keys.code_version("losses.some", project=tmp_path))
    assert found[0] == found[2] != found[1]


def test_names_that_a_package_hands_on_lead_to_their_module(tmp_path: Path) -> None:
    files = {
        "losses/__init__.py": "if TYPE_CHECKING:\n    from losses.inner import f\n",
        "losses/inner.py": "def f(): ...",
        "losses/other.py": "def g(): ...",
        "losses/user.py": "def use():\n    from losses import f\n    from . import other\n",
        "losses/unused.py": "",
    }
    found = []
    for name in (None, "inner", "other", "unused"):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(
                f"{text}\nx = 1\n" if path == f"losses/{name}.py" else text
            )
        keys._code.cache_clear()
        keys.code_version.cache_clear()
        found.append(keys.code_version("losses.user", project=tmp_path))
    assert len(set(found)) == 3 and found[3] == found[0]


def test_a_root_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="lightning_modules.methods.nothing"):
        keys.code_version("lightning_modules.methods.nothing")


def test_of_batch_and_devices_the_product_counts(base: Run) -> None:
    def key(batch: int, devices: int) -> str:
        return keys.training_key(
            conf.replace(base, {"trainer.batch": batch, "trainer.devices": devices})
        )

    assert key(4, 1) == key(2, 2) == key(1, 4) != key(4, 2)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"evaluation.steps": 50, "data.eval_images": 99, "output": "elsewhere"}, True),
        ({"trainer.log_every": 7, "trainer.checkpoint_every": 7, "data.workers": 2}, True),
        ({"evaluate_with": {"method.gate.threshold": 0.7}}, True),
        ({"method.masks.lambda_m": 0.5}, True),  # Another method's
        ({"method.gate.threshold": 0.7}, False),
        ({"method.separate.side": 8}, False),  # MaskAttn may read it
        ({"trainer.lr": 0.1}, False),
        ({"backbone.path": "embedded"}, False),
        ({"data.train_images": 99}, False),
        ({"data.min_phrases": 2}, False),
        ({"seed": 1}, False),
        ({"fresh": "again"}, False),
    ],
)
def test_the_key_of_an_adapter_holds_what_training_depends_on(
    base: Run, changes: dict, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # The digests of contents are kept below the output
    assert (keys.training_key(conf.replace(base, changes)) == keys.training_key(base)) == same


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"threshold": 0.7, "if_all_closed": "all"}, True),
        ({"mode": "topk", "keep": 0.3, "protect": "none"}, True),
        ({"apply_at": "post_softmax", "padding_gate": "open"}, True),
        ({"mode": "learned"}, False),  # Its threshold is trained
        ({"width": 64}, False),
        ({"supervision_target": "others"}, False),
        ({"denoising_weight": 1.0}, False),  # They act then
        ({"act_in_training": True}, False),
    ],
)
def test_gates_that_do_not_act_in_training_share_adapters(
    base: Run, changes: dict, same: bool
) -> None:
    looking_on = {"supervision": "masks", "denoising_weight": 0.0, "act_in_training": False}

    def key(gate: dict) -> str:
        config = conf.replace(base, {f"method.gate.{name}": value for name, value in gate.items()})
        check(config)
        return keys.training_key(config)

    assert (key(looking_on | changes) == key(looking_on)) == same


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"evaluate_with": {"method.masks.token_scale": 1.0}}, True),
        ({"evaluate_with": {"method.masks.mask_scope": "everywhere"}}, True),
        ({"evaluate_with": {"evaluation.follow_masks": True, "evaluation.masks": "wrong"}}, True),
        ({"method.masks.lambda_m": 0.5}, False),
        ({"method.masks.token_scale": 1.0}, False),
        ({"method.subjects.first_phase": 0.9}, False),
        ({"method.weights.rank": 4}, False),
        ({"method.gate.threshold": 0.7}, True),  # Another method's
    ],
)
def test_use_of_masks_may_change_after_training(base: Run, changes: dict, same: bool) -> None:
    config = conf.replace(base, {"method.name": "mcgm"})
    check(later := conf.replace(config, changes))
    assert (keys.training_key(later) == keys.training_key(config)) == same


def test_code_counts(base: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys.training_key(base)
    monkeypatch.setattr(keys, "training_code", lambda config: "other")
    assert keys.training_key(base) != before


def test_other_weights_below_the_same_path_make_another_adapter(base: Run, tmp_path: Path) -> None:
    weights = tmp_path / "backbone" / "unet" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    config = conf.replace(base, {"backbone.path": str(tmp_path / "backbone")})
    weights.write_bytes(b"one")
    first = keys.training_key(config)
    weights.write_bytes(b"two")
    second = keys.training_key(config)
    weights.write_bytes(b"one")
    assert second != first == keys.training_key(config)


def test_an_adapter_to_start_from_counts_by_its_weights(base: Run, tmp_path: Path) -> None:
    found = []
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter.safetensors").write_bytes(content)
        found.append(keys.training_key(conf.replace(base, {"method.init": str(tmp_path / name)})))
    assert found[0] == found[1] and len({*found, keys.training_key(base)}) == 3
