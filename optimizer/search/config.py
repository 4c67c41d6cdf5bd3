"""Config: the resolved settings that determine a run, saved with the study."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from optimizer.errors import UsageError
from optimizer.rendering.loading import Apply, Offload, Precision, Quantize
from optimizer.text import one_line

DEMO, FAKE = "demo:", "fake:"
PARTS = ("vae", "denoiser", "decoder", "base_config")
"""Options that name a replacement for one of the base model's parts."""
MAX_SOURCES = 5
KeepImages = Literal["best", "all", "none"]
Dtype = Literal["fp16", "bf16", "fp32"]
_NO_MODELS = {
    "quantize": "nothing can be put into weights of a few bits",
    "denoiser": "the sources bring their own",
    "storage": "full models do not travel: their workers are those of one machine (--workers)",
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: object) -> object:
    """Returns seconds from ``90``, ``90s``, ``15m``, ``8h`` or ``1h30m``; other values are returned unchanged, for pydantic to reject."""
    if not isinstance(text, str) or not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return text
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))


def _text(path: object) -> object:
    return os.fspath(path) if isinstance(path, os.PathLike) else path


PathText = Annotated[str, BeforeValidator(_text)]
"""A path or a name, as text; from Python a ``Path`` is accepted too."""


class Config(BaseModel):
    """A run's resolved configuration. Every field is a flag of ``optimize`` and a key of ``study.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[PathText, ...] = Field(
        (), description="Two to five LoRA files, or demo:NAME for one that ships with this package; with --kind model, full models."
    )
    kind: Literal["lora", "model"] = Field(
        "lora", description="What the sources are, and the result will be: LoRAs, or full models (folders, .safetensors files, hub names)."
    )
    base: PathText = Field(
        "",
        description="The model that the sources were trained on (SD 1.x to 3.5, SDXL, FLUX.1): diffusers folder, .safetensors checkpoint, "
        "or ORGANISATION/NAME in the local cache of the hub; not needed for demo sources, and full models can do without. "
        "fake: tries out all but the model.",
    )
    budget: int = Field(50, description="Recipes to try, beyond the baselines.")
    out: Path = Field(Path("study"), description="Study directory; a study that is there already is resumed.")
    seed: int = Field(0, ge=0, description="Seeds proposals, prompts and noise.")
    roles: tuple[Literal["style", "character", "concept"], ...] = Field(
        (), description="What each source is; read from the files where not given."
    )
    triggers: tuple[str, ...] = Field((), description='Trigger word of each source, "" for none; read from the files where not given.')
    prompts: PathText = Field("", description="YAML file with the words that prompts are built from.")
    own: int = Field(4, ge=1, description="Prompts per source that ask for it alone.")
    joint: int = Field(8, ge=0, description="Prompts that ask for all sources in one picture.")
    confirm: int = Field(8, ge=1, description="Fresh prompts of each kind on which the finalists are compared.")
    finalists: int = Field(3, ge=1, description="Candidates that are compared on the fresh prompts.")
    methods: tuple[str, ...] = Field(
        ("ties", "dare_linear", "dare_ties", "magnitude_prune"), description="Merge methods to try beside the weighted sum."
    )
    sampler: Literal["auto", "gp", "tpe"] = Field(
        "auto", description="What proposes: a Gaussian process (gp) proposes best, a Parzen estimator (tpe) at once; auto: gp where it can."
    )
    rank: int | None = Field(None, ge=1, description="Rank of the exported file; the sum of the sources' ranks where not given.")
    dtype: Dtype = Field("fp16", description="Number format of the exported file, or model.")
    dialect: Literal["kohya", "diffusers", "comfyui"] = Field("kohya", description="Key names of the exported file.")
    allow_unknown: bool = Field(False, description="Leave out tensors of the sources that are not understood, with a warning.")
    embedder: PathText = Field(
        "", description="open_clip model, MODEL/PRETRAINED or a folder; a default that suits the base where not given."
    )
    steps: int | None = Field(None, ge=1, description="Denoising steps.")
    guidance: float | None = Field(None, ge=0, description="Classifier-free guidance scale.")
    negative: str = Field("", description="Negative prompt.")
    scheduler: str = Field("", description="ddim, euler, euler_a, dpmpp_2m_karras, unipc, …; the base's own where not given.")
    clip_skip: int | None = Field(None, ge=1, description="Layer of CLIP that is read, counted from the last, which is 1.")
    vae: PathText = Field("", description="Another autoencoder than the base's: diffusers folder or .safetensors file.")
    base_config: PathText = Field("", description="Diffusers folder that says how a single file given as --base is laid out, if unusual.")
    denoiser: PathText = Field(
        "", description="Another U-Net or transformer than the base's: diffusers folder, .safetensors or .gguf file."
    )
    decoder: PathText = Field("", description="Folder of a tiny autoencoder (TAESD) that decodes the search's pictures; not the last ones.")
    resolution: int | None = Field(None, ge=8, multiple_of=8, description="Width and height in pixels; the base's own where not given.")
    batch: int = Field(16, ge=1, description="Pictures per forward pass.")
    device: str = Field("auto", description="Torch device.")
    precision: Precision = Field("auto", description="Number format of the base model in memory.")
    quantize: Quantize = Field("none", description="Quantise denoiser and T5 as they are loaded: nf4 (bitsandbytes), int8, fp8 (torchao).")
    offload: Offload = Field(
        "auto", description="What waits in the computer's memory: idle models (model), all but one layer (sequential), or what must (auto)."
    )
    apply: Apply = Field("auto", description="Where a candidate goes: into the weights, or into a LoRA branch beside them.")
    vae_slicing: bool = Field(False, description="Decode one picture at a time.")
    vae_tiling: bool = Field(False, description="Decode large pictures in tiles, which changes them a little.")
    attention_slicing: bool = Field(False, description="Compute attention head by head.")
    compile: bool = Field(False, description="Compile the denoiser; it is compiled once, not for every candidate.")
    cuda_graphs: bool = Field(False, description="Compile the denoiser and record it as CUDA graphs.")
    timeout: Annotated[float | None, BeforeValidator(seconds)] = Field(
        None, gt=0, description="Start no trial after this time: seconds, or 8h, 90m, 1h30m."
    )
    keep_images: KeepImages = Field(
        "best",
        description="Trials whose pictures stay on the disk: the baselines and the best so far, all, or none. "
        "Their contact sheets, which are small, stay with best, too.",
    )
    fork: str = Field(
        "",
        description="Begin a new study of this name beside --out, with the trials of --out that are still valid; "
        "they do not count as part of the budget.",
    )
    force: bool = Field(False, description="Allow more than five sources; of full models, merge what matches.")
    workers: int = Field(1, ge=1, description="Processes that evaluate recipes on this machine, one a GPU.")
    storage: str = Field("", description="postgresql://… database in which workers of many machines share the study.")
    study: str = Field("", description="The study's name in the database; the name of its directory where not given.")
    artifacts: PathText = Field("", description="Folder or s3://BUCKET/PREFIX that all machines reach, for evaluations and pictures.")

    @classmethod
    def of(cls, **options: Any) -> Config:
        """Returns a configuration made from options.

        Raises:
            UsageError: an option does not exist, or its value is out of range.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise refused(error) from error

    def checked(self) -> Config:
        """Returns this configuration after checking its values for consistency.

        Raises:
            UsageError: a value is invalid; the message names the option, its value and the remedy.
        """
        if self.budget <= 0:
            raise UsageError(f"the budget is {self.budget}", where="--budget", remedy="give the number of recipes to try, 1 or more")
        check_count(len(self.sources), force=self.force)
        if bool(self.storage) != bool(self.artifacts):
            lacking, given = ("--artifacts", "--storage") if self.storage else ("--storage", "--artifacts")
            remedy = "a database keeps the trials, and a place that all machines reach their pictures: give both or none"
            raise UsageError(f"goes with {given}", where=lacking, remedy=remedy)
        for option, each in (("--roles", self.roles), ("--triggers", self.triggers)):
            if each and len(each) != len(self.sources):
                remedy = "give one per source, in the same order"
                raise UsageError(f"{len(each)} given for {len(self.sources)} sources", where=option, remedy=remedy)
        if self.base.startswith(FAKE):
            from optimizer.rendering.fake_spec import FakeSpec  # imported here because it imports numpy, which the help text does not need

            FakeSpec.of(self.base)
        if self.whole:
            return self._checked_for_models()
        files = [source for source in self.sources if not source.startswith(DEMO)]
        if not self.base and (missing := [file for file in files if not os.path.exists(_absolute(file))]):
            remedy = "check the path; a source that ships with this package is written demo:NAME, see optimize demo"
            raise UsageError("does not exist", where=missing[0], remedy=remedy)
        if not self.base and files:
            remedy = "give the diffusers folder of the model that the sources were trained on"
            raise UsageError("no base model given", where="--base", remedy=remedy)
        return self

    @property
    def whole(self) -> bool:
        """Whether the sources are full models."""
        return self.kind == "model"

    @property
    def interpolates(self) -> bool:
        """Whether full models are merged with each other, without a common base model."""
        return self.whole and not self.base

    @property
    def drawn_with(self) -> str:
        """Base model that is loaded, as named by the user; empty for the demo base."""
        return self.base or (self.sources[0] if self.whole else "")

    @property
    def joint_prompts(self) -> int:
        """Number of prompts that ask for all sources; 0 if effects are measured against the other sources."""
        return 0 if self.interpolates else self.joint

    def _checked_for_models(self) -> Config:
        """Returns this configuration after checking the options for full models."""
        for source in (*self.sources, self.base):
            if source.startswith((DEMO, FAKE)):
                raise UsageError("is no full model", where=source, remedy="give diffusers folders or .safetensors checkpoints")
        for option in ("rank", "quantize", "denoiser", "allow_unknown", "storage"):
            if getattr(self, option) != type(self).model_fields[option].default:
                reason = _NO_MODELS.get(option, "is for LoRAs")
                raise UsageError(reason, where=f"--{option.replace('_', '-')}", remedy="leave it out, or leave --kind model out")
        if self.apply == "branch":
            raise UsageError("other weights altogether cannot go into a branch", where="--apply branch", remedy="leave it out")
        if self.interpolates and self.methods != type(self).model_fields["methods"].default:
            remedy = "name the model that the sources were trained from with --base, or leave --methods out"
            raise UsageError("they merge the changes of a base", where="--methods", remedy=remedy)
        return self

    def resolved(self) -> Config:
        """Returns a copy with absolute paths, so that the saved configuration is independent of the working directory."""
        return self.model_copy(
            update={
                "base": _absolute_if_there(self.base),
                **{part: _absolute(place) if (place := getattr(self, part)) else "" for part in PARTS},
                "embedder": _absolute_if_there(self.embedder),
                "sources": tuple(self._source_resolved(source) for source in self.sources),
                "prompts": _absolute(self.prompts) if self.prompts else "",
                "out": Path(_absolute(str(self.out))),
                "artifacts": self.artifacts if "://" in self.artifacts or not self.artifacts else _absolute(self.artifacts),
            }
        )

    def _source_resolved(self, source: str) -> str:
        if self.whole:
            return _absolute_if_there(source)
        return source if source.startswith(DEMO) else _absolute(source)

    def to_yaml(self) -> str:
        """Returns the configuration as YAML, with every option's resolved value."""
        shown = self.model_copy(update={"storage": without_password(self.storage)})
        return str(yaml.safe_dump(shown.model_dump(mode="json"), sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, path: Path) -> Config:
        """Reads a configuration that ``to_yaml`` wrote.

        Raises:
            UsageError: the file is not readable, or contains an unknown option.
        """
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            problem = f"the configuration cannot be used: {refused(error)}"
            raise UsageError(problem, where=path, remedy="restore the file, or start a new study") from error
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            problem = f"the configuration cannot be read: {one_line(error)}"
            raise UsageError(problem, where=path, remedy="restore the file, or start a new study") from error


def without_password(url: str) -> str:
    """Returns a database URL without its password parameters, for files and messages."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.split(":")[0]
    query = "&".join(item for item in parts.query.split("&") if not item.lower().startswith(("password", "sslpassword")))
    return urlunsplit(parts._replace(netloc=f"{name}@{host}" if name else host, query=query)) if url else ""


def check_count(sources: int, *, force: bool) -> None:
    """Rejects fewer than two sources, and, unless forced, more than the maximum.

    Raises:
        UsageError: the number of sources is out of range; the message names it.
    """
    if sources < 2:
        remedy = "give two to five LoRA files; one alone has nothing to be merged with"
        raise UsageError(f"{sources or 'no'} source given", where="--sources", remedy=remedy)
    if sources > MAX_SOURCES and not force:
        raise UsageError(f"{sources} sources given", where="--sources", remedy="merge at most five, or add --force")


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _absolute_if_there(path: str) -> str:
    """Returns the absolute path of an existing file or folder; other names, which another component resolves, are returned unchanged."""
    return _absolute(path) if path and not path.startswith(FAKE) and os.path.exists(_absolute(path)) else path


def refused(error: ValidationError) -> UsageError:
    """Returns the first pydantic validation error as an error about the command line."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return UsageError(f"got {first['input']!r}", remedy="give a mapping of options, such as budget: 50")
    option = f"--{str(first['loc'][0]).replace('_', '-')}"
    if first["type"] == "extra_forbidden":
        return UsageError("there is no such option", where=option, remedy="see optimize --help")
    what = first["msg"][0].lower() + first["msg"][1:]
    return UsageError(f"got {first['input']!r}", where=option, remedy=what.replace("input should", "it should"))
