"""What a merge takes over from its sources' metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from optimizer.adapters import load_adapter
from optimizer.export import ExportMetadata, Heritage, export_adapter, heritage
from tests.formats import VERSIONS, make


@pytest.mark.parametrize(
    ("licences", "together"),
    [
        (("MIT", "MIT"), "MIT"),
        (("MIT", "CC-BY-4.0"), "a: MIT; b: CC-BY-4.0"),
        (("MIT", ""), "a: MIT; b: not stated"),
        (("", ""), ""),
        (("  x\n<b>  y ", "x <b> y"), "x <b> y"),
        (("z" * 999, "z" * 200), "z" * 200),
    ],
)
def test_licences(licences: tuple[str, str], together: str) -> None:
    first, second = licences
    assert heritage([("a", {"modelspec.license": first}), ("b", {"license": second})]).licence == together


def test_authors_and_tags_once_each() -> None:
    a = {"modelspec.author": "Ann", "modelspec.tags": "style, neon"}
    b = {"ss_author": "Bob", "modelspec.author": " Ann ", "modelspec.tags": "neon,, robot\x1b[31m"}
    assert heritage([("a", a), ("b", b), ("c", {"author": "Cy"})]) == Heritage("", ("Ann", "Cy"), ("style", "neon", "robot[31m"))
    assert len(heritage([("a", {"modelspec.tags": ",".join(map(str, range(99)))})]).tags) == 20


@pytest.mark.parametrize("family", VERSIONS)
def test_it_stands_in_the_header_of_every_family(tmp_path: Path, family: str) -> None:
    source = load_adapter(
        make(tmp_path / "a.safetensors", "diffusers", family, "LoRA", metadata={"ss_base_model_version": VERSIONS[family]}).path
    )
    own = ExportMetadata("T", description="D", date="2026-01-02", heritage=Heritage("MIT", ("Ann",), ("neon", "lora")))
    header = load_adapter(export_adapter(source, tmp_path / "b.safetensors", metadata=own)).metadata
    said = {key: header[f"modelspec.{key}"] for key in ("license", "author", "tags", "description", "date", "architecture", "resolution")}
    architectures = ("stable-diffusion-v1", "stable-diffusion-v2-512", "stable-diffusion-xl-v1-base", "stable-diffusion-3")
    assert said == {
        **{"license": "MIT", "author": "Ann", "tags": "lora, merge, neon", "description": "D", "date": "2026-01-02"},
        "architecture": dict(zip(VERSIONS, (*architectures, "flux-1-dev", "Qwen-Image"), strict=True))[family] + "/lora",
        "resolution": "512x512" if family in ("sd1", "sd2") else "1024x1024",
    }
    networks = {"sd3": "networks.lora_sd3", "flux1": "networks.lora_flux", "qwen-image": "networks.lora_qwen_image"}
    assert (header["ss_network_module"], header["ss_base_model_version"]) == (networks.get(family, "networks.lora"), VERSIONS[family])
