"""Declarations of the options: what each says about itself, and that every reader of the declarations agrees."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from optimizer.errors import StudyError, UsageError
from optimizer.rendering import Loading as LoadingOptions
from optimizer.rendering import RenderSettings
from optimizer.search.config import GROUPS, OPTIONS, Config, Panel, Settings, checked, option_of
from optimizer.search.config.values import option_key, option_name
from optimizer.search.evaluation.fingerprint import check_same_run

SAVED = """sources:
- a
- b
kind: lora
base: sd
budget: 50
out: study
seed: 0
roles: []
triggers: []
prompts: ''
own: 4
joint: 8
confirm: 14
finalists: 3
methods:
- ties
- dare_linear
- dare_ties
- magnitude_prune
sampler: auto
rank: 3
dtype: fp16
dialect: kohya
allow_unknown: false
embedder: ''
steps: null
guidance: null
negative: ''
scheduler: ''
clip_skip: null
vae: v
base_config: ''
denoiser: ''
decoder: ''
resolution: null
batch: 16
device: auto
precision: auto
quantize: none
offload: auto
apply: auto
vae_slicing: false
vae_tiling: false
attention_slicing: false
compile: false
cuda_graphs: false
timeout: 7200.0
keep_images: best
fork: ''
force: false
workers: 1
storage: postgresql://u@h/d
study: ''
artifacts: s3://b/p
"""
"""A ``study.yaml`` that version 0.1.0 wrote. Its order is that of the command, by which a finished study is recognised."""

LATER = (
    "metric: []\npriority: []\nkeep: []\npareto: false\nno_pruning: false\neval_base: ''\nwith: []\npatience: null\n"
    "weights: []\nfreeze: []\nblocks:\n- auto\ngrid: 0.05\n"
)
"""Options that later versions have added, with their defaults."""

KEYS = list(yaml.safe_load(SAVED + LATER))
ORDER = [{"with": "with_"}.get(key, key) for key in KEYS]
FREE = {
    *("out", "workers", "storage", "study", "artifacts", "budget", "timeout", "force", "confirm", "finalists", "batch"),
    *("dialect", "keep_images", "fork", "offload", "vae_slicing", "attention_slicing", "no_pruning", "patience"),
}
PER_MACHINE = {"out", "storage", "study", "artifacts", "workers", "device", "batch", "timeout", "budget"}
PARTS = {"vae", "denoiser", "decoder", "base_config"}
NOT_FOR_MODELS = {
    *("eval_base", "with_", "pareto", "weights", "freeze", "grid", "rank", "quantize", "denoiser", "allow_unknown", "storage"),
}

OTHER: dict[str, Any] = {
    "sources": ("c", "d"),
    "kind": "model",
    "roles": ("style", "style"),
    "triggers": ("x", "y"),
    "methods": ("ties",),
    "metric": ("m=module:name",),
    "priority": ("c=2",),
    "keep": ("c=0.5",),
    "with_": ("lcm.safetensors:0.5",),
    "weights": ("c=0.4:0.9",),
    "freeze": ("d=0.5",),
    "blocks": ("IN", "OUT"),
    "grid": 0.1,
    "sampler": "tpe",
    "dtype": "bf16",
    "dialect": "diffusers",
    "keep_images": "all",
    "precision": "bf16",
    "quantize": "nf4",
    "offload": "model",
    "apply": "branch",
    "resolution": 64,
    "timeout": 9.0,
}
"""Values other than the default, of options whose type does not suggest one."""


def other(name: str) -> Any:
    default = OPTIONS[name].default
    if name in OTHER:
        return OTHER[name]
    if isinstance(default, bool):
        return not default
    return Path("/x") if name == "out" else "x" if isinstance(default, str) else 9


def test_a_saved_configuration_reads_and_is_written_as_by_earlier_versions(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(SAVED)
    found = Config.from_yaml(tmp_path / "study.yaml")
    assert found.to_yaml() == SAVED + LATER
    methods = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
    more = {"methods": methods, "timeout": "2h", "rank": 3, "vae": "v", "storage": "postgresql://u@h/d", "artifacts": "s3://b/p"}
    assert found == Config.of(sources=("a", "b"), base="sd", **more)
    assert list(OPTIONS) == ORDER
    assert [option_of(field).number for field in OPTIONS.values()] == list(range(1, len(ORDER) + 1))


def test_every_option_is_in_one_group() -> None:
    assert sorted(name for group in GROUPS for name in group.model_fields) == sorted(ORDER)
    config = Config.of(**{name: other(name) for name in ORDER})
    assert config.options() == {name: other(name) for name in ORDER}
    assert Config.of(**config.options()) == config != Config.of()
    assert Config.of(**dict(zip(KEYS, config.options().values(), strict=True))) == config


def test_what_options_say_about_themselves() -> None:
    declared = {name: option_of(field) for name, field in OPTIONS.items()}
    assert {name for name, option in declared.items() if not option.identity} == FREE
    assert {name for name, option in declared.items() if option.per_machine} == PER_MACHINE
    assert {name for name, option in declared.items() if option.part} == PARTS == set(Config.of().loading.parts())
    assert {name for name, option in declared.items() if option.not_for_models} == NOT_FOR_MODELS
    assert {option.panel for option in declared.values()} == set(Panel)


def test_an_option_that_declares_nothing_is_found() -> None:
    class Undeclared(Settings):
        speed: int = Field(default=1)

    with pytest.raises(TypeError, match="a setting of type <class 'int'> declares no Option"):
        option_of(Undeclared.model_fields["speed"])


@pytest.mark.parametrize("name", ORDER)
def test_a_study_is_resumed_only_with_the_settings_of_its_identity(name: str, tmp_path: Path) -> None:
    saved, asked = Config.of(), Config.of(**{name: other(name)})
    if name in FREE:
        check_same_run(saved, asked, tmp_path)
    else:
        with pytest.raises(StudyError, match=rf"the study here was made with other settings \({option_key(name)}: "):
            check_same_run(saved, asked, tmp_path)


@pytest.mark.parametrize("name", sorted(NOT_FOR_MODELS))
def test_full_models_cannot_be_given_every_option(name: str) -> None:
    more = {"artifacts": "x"} if name == "storage" else {}
    with pytest.raises(UsageError) as caught:
        checked(Config.of(kind="model", sources=("a", "b"), **more, **{name: other(name)}))
    assert str(caught.value) == (
        f"{option_name(name)}: {option_of(OPTIONS[name]).not_for_models} — leave it out, or leave --kind model out"
    )


def test_the_renderer_gets_every_setting_that_it_knows() -> None:
    config = Config.of(**{name: other(name) for name in ORDER})
    for taken in (config.rendering.render_settings(), config.loading.loading_options()):
        assert {field.name: getattr(taken, field.name) for field in fields(taken)} == {f.name: other(f.name) for f in fields(taken)}
    assert {f.name for f in fields(RenderSettings)} == set(type(config.rendering).model_fields)
    assert {f.name for f in fields(LoadingOptions)} == set(type(config.loading).model_fields) - {"decoder"}


def test_a_copy_with_other_values_is_checked() -> None:
    config = Config.of(sources=("a", "b"), budget=7)
    assert config.replaced(batch=2) == Config.of(sources=("a", "b"), budget=7, batch=2)
    with pytest.raises(UsageError) as caught:
        config.replaced(batch=0)
    assert str(caught.value) == "--batch: got 0 — it should be greater than or equal to 1"


def test_the_name_in_the_database_is_that_of_the_directory_unless_given() -> None:
    assert Config.of(out="a/b").places.study_name == "b"
    assert Config.of(out="a/b", study="c").places.study_name == "c"
