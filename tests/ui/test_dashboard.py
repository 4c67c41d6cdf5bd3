"""The board: what optuna-dashboard shows of a study, that it cannot change it, and the contact sheets."""

from __future__ import annotations

import io
import json
import urllib.request
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import optuna
import pytest
import torch
from PIL import Image

from optimizer.cli.main import execute
from optimizer.search.images.contact_sheets import keep_sheet, sheet, sheet_links
from optimizer.search.trials.optuna_notes import introduce, note, note_attributes, result_of
from optimizer.search.workers.trial_writer import StorageTrialWriter
from optimizer.ui.dashboard import Sheets, board
from studies.records import Evaluation, SourceScore
from studies.store import FolderStore

SHARE = SourceScore(preservation=0.5, own=0.4, joint=0.6)
FOUND = Evaluation(recipe={"method": "ties"}, recipe_hash="0f" * 32, score=0.5, sources={"a|b": SHARE}, artifacts=0.25, seconds=2)


@pytest.mark.parametrize(("shape", "size"), [((16, 3, 16, 16), (384, 384)), ((5, 3, 1024, 512), (1024, 1024)), ((1, 3, 8, 8), (96, 96))])
def test_a_sheet_is_a_grid_of_bounded_size(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    assert sheet(torch.zeros(shape, dtype=torch.uint8)).size == size


def test_a_study_is_shown_and_cannot_be_changed(tmp_path: Path) -> None:
    store, study = FolderStore(tmp_path), optuna.create_study(direction="maximize")
    keep_sheet(store, FOUND.recipe_hash, torch.zeros((4, 3, 16, 16), dtype=torch.uint8))
    introduce(study)
    study.ask()
    assert StorageTrialWriter(study).end(study.trials[0], result_of(study.trials[0], "key", FOUND, sheet_links(store, FOUND.recipe_hash)))
    with board(study._storage, store, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with board(study._storage, store, server.server_port) as second:
            assert second.server_port != server.server_port

        def asked(path: str, **how: Any) -> bytes:
            with urllib.request.urlopen(urllib.request.Request(url + path, **how)) as answer:
                return bytes(answer.read())

        shown = json.loads(asked("/api/studies/0"))
        assert shown["objective_names"] == ["score"]
        assert shown["note"]["body"].startswith("Each trial is one merge")
        (row,) = shown["trials"]
        assert row["note"]["body"].startswith("Proposed by the search: **score 0.500**")
        values = {a["key"]: a["value"] for a in row["user_attrs"]}
        assert values == {"evaluation": "key", "preservation a|b": "0.5", "artifacts": "0.25"}
        (artifact,) = row["artifacts"]
        picture = asked(f"/artifacts/0/{row['trial_id']}/{artifact['artifact_id']}")
        assert Image.open(io.BytesIO(picture)).format == "WEBP"
        for how in ({"method": "DELETE"}, {"headers": {"Host": "elsewhere.example"}}):
            with pytest.raises(HTTPError) as refused:
                asked("/api/studies/0", **how)
            assert refused.value.code == (405 if "method" in how else 403)
        server.shutdown()
    assert len(study.trials) == 1
    with pytest.raises(PermissionError):
        Sheets(store).remove(artifact["artifact_id"])


def test_the_link_is_optunas_own(tmp_path: Path) -> None:
    study = optuna.create_study()
    trial = study.ask()
    store = FolderStore(tmp_path)
    assert sheet_links(store, FOUND.recipe_hash) == {}
    keep_sheet(store, FOUND.recipe_hash, torch.zeros((1, 3, 8, 8), dtype=torch.uint8))
    for name, value in sheet_links(store, FOUND.recipe_hash).items():
        trial.storage.set_trial_system_attr(trial._trial_id, name, value)
    (meta,) = optuna.artifacts.get_all_artifact_meta(trial, storage=study._storage)
    assert (meta.artifact_id, meta.mimetype, meta.encoding) == ("0f" * 8, "image/webp", None)
    artifacts = optuna.artifacts.FileSystemArtifactStore(tmp_path / "sheets")
    with artifacts.open_reader(meta.artifact_id) as file:
        assert Image.open(file).format == "WEBP"


def test_notes_are_stored_as_the_dashboard_stores_them() -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    study = optuna.create_study()
    trial = study.ask()
    text = "x" * 5000
    dashboard.save_note(trial, text)
    assert note_attributes(text, trial._trial_id) == study._storage.get_study_system_attrs(study._study_id)


def test_a_note_holds_no_markup_of_a_file_name() -> None:
    assert "| a&#124;b | 50% | 40% | 60% | 0% |" in note("[x](y)", FOUND)
    assert note("[x](y)", FOUND).startswith("&#91;x&#93;&#40;y&#41;: **score 0.500**")


def test_a_note_shows_a_dash_for_what_cannot_be_measured() -> None:
    always = FOUND.sources["a|b"].model_copy(update={"leakage": float("nan")})
    found = FOUND.model_copy(update={"sources": {"a|b": always}})
    assert "| a&#124;b | 50% | 40% | 60% | – |" in note("", found)


def test_what_the_dashboard_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna_dashboard", None)
    with pytest.raises(Exception, match=r'is not installed — pip install "multilora-optimizer\[dashboard\]"'):
        board(optuna.storages.InMemoryStorage(), None, 0)
    assert execute(["dashboard", "--study", "x"]) == 2
    assert capsys.readouterr().err.startswith("optimize: which study is meant cannot be told — give its directory")
    assert execute(["dashboard", str(tmp_path / "none")]) == 2
    assert "there is no such directory" in capsys.readouterr().err
