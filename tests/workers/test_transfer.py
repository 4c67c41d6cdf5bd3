"""What a worker elsewhere needs comes through the store, by content, and is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from optimizer.errors import StudyError
from optimizer.search.config import Config
from optimizer.search.config.accelerators import parse_accelerators
from optimizer.search.evaluation.session import prepare
from optimizer.search.observer import Silent
from optimizer.search.sources.loras import load_loras
from optimizer.search.workers import transfer as travel
from optimizer.search.workers.transfer import fetch_config, send
from studies.store import FolderStore
from tests.files import LINEAR, kohya_file, random_parts
from tests.workers.runs import Sources


@pytest.fixture
def begun(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[optuna.Study, FolderStore, Config]:
    """A study whose files were sent, its store, and what another machine knows of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    here: dict[str, Any] = {"out": tmp_path / "out", "storage": "postgresql://h/d", "artifacts": str(tmp_path / "store"), "budget": 7}
    config = Config.of(sources=sources, base="fake:size=4", seed=3, own=2, **here)
    study, store = optuna.create_study(), FolderStore(tmp_path / "store")
    send(config, prepare(config, Silent()).sources, study, store)
    return study, store, Config.of(storage="postgresql://elsewhere/d", study="s", artifacts="/mnt/store", device="cpu", batch=2)


def test_sources_arrive_by_content_and_settings_are_those_of_the_study_but_for_what_is_each_machines_own(
    begun: tuple[optuna.Study, FolderStore, Config], sources: Sources, tmp_path: Path
) -> None:
    study, store, there = begun
    found = fetch_config(there, study, store)
    assert [Path(p).read_bytes() for p in found.inputs.sources] == [Path(p).read_bytes() for p in sources]
    assert all(Path(p).is_relative_to(tmp_path / "cache" / "multilora" / "sources") for p in found.inputs.sources)
    assert [Path(p).name for p in found.inputs.sources] == ["a.safetensors", "b.safetensors"]
    assert (found.inputs.base, found.search.seed, found.protocol.own) == ("fake:size=4", 3, 2)
    assert fetch_config(there.replaced(base="/here/sd", vae="/here/vae"), study, store).loading.vae == "/here/vae"
    places = (found.places.storage, found.places.artifacts)
    assert (*places, found.loading.device, found.rendering.batch) == ("postgresql://elsewhere/d", "/mnt/store", "cpu", 2)


def test_accelerators_arrive_by_content_and_each_machine_has_the_model_that_draws_in_its_own_place(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    lcm = kohya_file(tmp_path / "lcm.safetensors", random_parts(LINEAR, seed=9)).path
    here: dict[str, Any] = {"storage": "postgresql://h/d", "artifacts": str(tmp_path / "store"), "eval_base": "fake:size=8"}
    config = Config.of(sources=sources, base="fake:size=4", with_=(f"{lcm}:0.5", "demo:neon"), **here)
    study, store = optuna.create_study(), FolderStore(tmp_path / "store")
    send(config, load_loras(config.inputs), study, store)
    found = fetch_config(Config.of(storage="postgresql://elsewhere/d"), study, store).inputs
    (first, demo), weights = zip(*((text.file, text.weight) for text in parse_accelerators(found.with_)), strict=True)
    assert (demo, weights) == ("demo:neon", (0.5, 1.0))
    assert Path(first).read_bytes() == lcm.read_bytes()
    assert Path(first).is_relative_to(tmp_path / "cache" / "multilora" / "sources")
    assert found.eval_base == "fake:size=8"
    own = Config.of(storage="postgresql://elsewhere/d", eval_base="fake:size=8&latency=0.1")
    assert fetch_config(own, study, store).inputs.eval_base == "fake:size=8&latency=0.1"


def test_triggers_arrive_that_were_read_beside_a_file(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' model card lies beside its file, and only the file is sent."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    hero = tmp_path / "hero" / "pytorch_lora_weights.safetensors"
    hero.parent.mkdir()
    hero.write_bytes(Path(sources[0]).read_bytes())
    (hero.parent / "README.md").write_text("---\ninstance_prompt: a photo of sks dog\n---\n")
    here: dict[str, Any] = {"storage": "postgresql://h/d", "artifacts": str(tmp_path / "store")}
    config = Config.of(sources=(str(hero), sources[1]), base="fake:size=4", **here)
    study, store = optuna.create_study(), FolderStore(tmp_path / "store")
    send(config, prepare(config, Silent()).sources, study, store)
    assert fetch_config(Config.of(storage="postgresql://elsewhere/d"), study, store).inputs.triggers == ("sks dog", "")


def test_files_are_kept_and_a_damaged_copy_is_fetched_again(begun: tuple[optuna.Study, FolderStore, Config], sources: Sources) -> None:
    study, store, there = begun
    first = Path(fetch_config(there, study, store).inputs.sources[0])
    first.write_bytes(b"damaged")
    assert Path(fetch_config(there, study, store).inputs.sources[0]).read_bytes() == Path(sources[0]).read_bytes()
    for name in list(store.names("sources")):
        store.remove(name)
    assert Path(fetch_config(there, study, store).inputs.sources[0]).read_bytes() == Path(sources[0]).read_bytes()


@pytest.mark.parametrize("problem", ["missing", "damaged"])
def test_a_file_that_the_store_has_lost_or_spoilt(begun: tuple[optuna.Study, FolderStore, Config], problem: str) -> None:
    study, store, there = begun
    name = next(n for n in store.names("sources") if n.endswith("/b.safetensors"))
    if problem == "missing":
        store.remove(name)
    else:
        store.write(name, b"damaged")
    with pytest.raises(StudyError) as caught:
        fetch_config(there, study, store)
    assert str(caught.value) == (
        f"{name}: b.safetensors is {problem} {'from' if problem == 'missing' else 'in'} the store — "
        "run the command that began the study again: it sends its files"
    )


def test_sending_again_mends_the_store_and_writes_nothing_that_is_whole(
    begun: tuple[optuna.Study, FolderStore, Config], sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, store, there = begun
    name = next(n for n in store.names("sources") if n.endswith("/b.safetensors"))
    store.write(name, b"damaged")
    written: list[str] = []
    real = FolderStore.write

    def write(store: FolderStore, name: str, data: bytes) -> None:
        written.append(name)
        real(store, name, data)

    monkeypatch.setattr(FolderStore, "write", write)
    config = Config.of(sources=sources, base="fake:size=4")
    send(config, prepare(config, Silent()).sources, study, store)
    assert written == [name]
    assert len(fetch_config(there, study, store).inputs.sources) == 2


def test_another_version_is_refused(begun: tuple[optuna.Study, FolderStore, Config], monkeypatch: pytest.MonkeyPatch) -> None:
    study, store, there = begun
    monkeypatch.setattr(travel, "version", lambda name: "9.9+cpu")
    sent = study.user_attrs["version"]
    with pytest.raises(StudyError) as caught:
        fetch_config(there, study, store)
    assert str(caught.value) == (
        f"--study: the study was begun with {sent}, here is multilora-optimizer 9.9, torch 9.9, diffusers 9.9 — "
        "install the same versions on all machines"
    )


def test_a_study_that_nobody_has_sent_yet(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        fetch_config(Config.of(), optuna.create_study(), FolderStore(tmp_path))
    assert str(caught.value) == "--study: the study has not been begun yet — start optimize --storage … first, or wait for it"
