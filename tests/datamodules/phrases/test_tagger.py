"""Noun phrases of a spaCy pipeline that the user has installed, here a tiny one made of rules."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf import load as conf
from conf.schema import Run
from datamodules.batch import Instance
from datamodules.coco import CocoDataset
from datamodules.formats.index import Problems
from datamodules.formats.prompt_files import read_prompts, read_sources
from datamodules.phrases import pipelines
from datamodules.phrases.link import link
from datamodules.phrases.pipelines import find_pipeline, tagger_identity
from datamodules.phrases.tagger import LIGHT_TAGGER, SpacyTagger, load_tagger
from datamodules.shapes.dataset import write_dataset
from lightning_modules.training.checks import check
from lightning_modules.training.keys import training_key

SEPEN = "a photo of a cat and a lamp"
# Of the pipeline that is made here
NOUNS = {"photo", "cat", "lamp", "group", "people", "middle", "picture", "dock", "circle", "square"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a pipeline that marks noun chunks by a list of nouns."""
    spacy = pytest.importorskip("spacy")
    from spacy.language import Language
    from spacy.tokens import Doc

    def mark(doc: Any) -> Any:
        pos = ["NOUN" if t.text in NOUNS else "DET" if t.text == "a" else "ADP" for t in doc]
        heads, deps = [], []
        for i, kind in enumerate(pos):
            noun = next((j for j in range(i, len(pos)) if pos[j] == "NOUN"), i)
            heads.append(noun if kind == "DET" else i)
            deps.append({"NOUN": "ROOT", "DET": "det", "ADP": "dep"}[kind])
        spaces = [bool(t.whitespace_) for t in doc]
        texts = [t.text for t in doc]
        return Doc(doc.vocab, texts, spaces, pos=pos, heads=heads, deps=deps)

    Language.component("nouns_by_list", func=mark)
    nlp = spacy.blank("en")
    nlp.add_pipe("nouns_by_list")
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    nlp.to_disk(folder)
    return str(folder)


def words(text: str, spans: Any) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_the_light_tagger_reads_the_prompts_of_separate_and_enhance():
    assert words(SEPEN, LIGHT_TAGGER.spans(SEPEN)) == ["cat", "lamp"]
    assert load_tagger("light") is LIGHT_TAGGER
    assert tagger_identity("light").startswith("light ")


def test_chunks_of_a_pipeline_are_cut_and_left_out_as_those_of_the_light_tagger(pipeline: str):
    tagger = load_tagger(pipeline)
    assert words(SEPEN, tagger.spans(SEPEN)) == ["cat", "lamp"]
    text = "a group of people in the middle of a dock"
    assert words(text, tagger.spans(text)) == ["people", "dock"]
    assert words(text, pickle.loads(pickle.dumps(tagger)).spans(text)) == ["people", "dock"]


def test_what_is_absent_is_no_object_of_a_pipeline_either():
    chunks = [
        SimpleNamespace(start_char=0, end_char=5),
        SimpleNamespace(start_char=14, end_char=19),
    ]
    tagger = SpacyTagger.__new__(SpacyTagger)
    tagger._pipeline = lambda text: SimpleNamespace(noun_chunks=chunks)
    text = "a cat without a dog"
    assert words(text, tagger.spans(text)) == ["cat"]


def test_a_pipeline_reads_prompts_and_counts_the_phrases_of_captions(pipeline: str, tmp_path: Path):
    tagger = load_tagger(pipeline)
    path = tmp_path / "mine.txt"
    path.write_text("a cat on a hovercraft\na photo of a cat and a lamp\n")
    (file,), _ = read_sources([path], "auto", Problems("raise"), tagger=tagger)
    assert [words(r.text, r.phrases) for r in file.records] == [["cat"], ["cat", "lamp"]]
    assert words(path.read_text(), read_prompts(path)[0].phrases) == ["cat", "hovercraft"]
    write_dataset(tmp_path / "world", {"train": 40})
    light, own = (
        CocoDataset(
            tmp_path / "world", "train", 64, min_phrases=2, tagger=t, index_root=tmp_path / "index"
        )
        for t in (LIGHT_TAGGER, tagger)
    )
    assert 0 < len(own) < len(light), "the pipeline knows two of the shapes"
    assert own.manifest["facts"]["tagger"] == tagger.identity != LIGHT_TAGGER.identity
    assert all("circle" in c.text or "square" in c.text for r in own.records for c in r.captions)


def test_a_pipeline_says_which_words_stand_before_another_noun(pipeline: str):
    mask = torch.ones(8, 8, dtype=torch.bool)
    boat = Instance("boat", mask, (0.0, 0.0, 8.0, 8.0))
    assert not link("the ship dock", [boat])
    assert link("the ship dock", [boat], tagger=load_tagger(pipeline)), "it has no noun 'ship'"


def test_a_pipeline_is_part_of_the_key_by_its_content(pipeline: str, tmp_path: Path):
    config = conf.replace(Run(), {"output": str(tmp_path), "data.tagger": pipeline})
    check(config)
    key = training_key(config)
    assert key != training_key(conf.replace(config, {"data.tagger": "light"}))
    meta = Path(pipeline) / "meta.json"
    before = meta.read_bytes()
    meta.write_bytes(before.replace(b'"version"', b'"Version"'))
    try:
        assert training_key(config) != key
    finally:
        meta.write_bytes(before)
    assert training_key(config) == key


def test_a_pipeline_without_noun_chunks_is_refused(tmp_path: Path):
    spacy = pytest.importorskip("spacy")
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match="no noun chunks"):
        load_tagger(str(tmp_path / "blank"))


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    there: dict[str, Any] = {}
    monkeypatch.setattr(pipelines, "find_spec", there.get)
    config = conf.replace(Run(), {"output": str(tmp_path), "data.tagger": "en_core_web_sm"})
    with pytest.raises(ValueError, match="pip install spacy"):
        check(config)
    with pytest.raises(ValueError, match=r"data.tagger='ligth'.*did you mean light\?"):
        find_pipeline("ligth")
    there["spacy"] = importlib.util.find_spec("json")
    with pytest.raises(ValueError, match="python -m spacy download en_core_web_sm"):
        check(config)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is no spaCy pipeline"):
        find_pipeline(str(tmp_path / "folder"))
