"""What merging full models costs: to a model on the disk, and into the pipeline that draws a candidate.

Run ``python -m benchmarks.full_models [--small] [--threads 2]``. Three models have Stable Diffusion XL's shapes (7 GB each in bfloat16;
tiny ones with ``--small``) and random weights. Two of them are merged at α = 0.4, as ``optimize merge --kind model`` does, against the way
of diffusers' community pipeline ``checkpoint_merger``: load both, combine their state dictionaries, save. Then a weighted sum and TIES over
the third are put into a loaded pipeline and taken out again, as a search does once a trial. Every job runs in a process of its own; its
peak is that of memory that no file backs. Files are in the system's cache where they fit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from benchmarks.pipelines import saved

_WATCH = """
import json, sys, threading, time
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[1]))
peak, over = [0], threading.Event()
def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
def watch():
    while not over.wait(0.02):
        peak[0] = max(peak[0], anonymous())
def measured(job):
    before = anonymous()
    threading.Thread(target=watch, daemon=True).start()
    begun = time.perf_counter()
    job()
    seconds = time.perf_counter() - begun
    over.set()
    print(json.dumps({"seconds": seconds, "peak": peak[0] - before}))
a, b, base, out = map(Path, sys.argv[2:])
"""
_JOBS = {
    "merge, ours": """
from optimizer.merging.models import Job, merge_models
from optimizer.checkpoints.folder import Folder
import optimizer.merging.methods
measured(lambda: merge_models(Job((Folder(a), Folder(b)), formula="weighted_sum", alpha=0.4), out))
""",
    "merge, load both": """
from diffusers import DiffusionPipeline
def job():
    pipelines = [DiffusionPipeline.from_pretrained(place, dtype=torch.bfloat16, local_files_only=True) for place in (a, b)]
    for part, model in pipelines[0].components.items():
        if isinstance(model, torch.nn.Module) and part != "vae":
            other = pipelines[1].components[part].state_dict()
            merged = {n: (w.float() * 0.6 + other[n].float() * 0.4).to(w.dtype) for n, w in model.state_dict().items()}
            model.load_state_dict(merged)
    pipelines[0].save_pretrained(out)
measured(job)
""",
    **{
        f"candidate, {method}": f"""
from optimizer.merging import Recipe
from optimizer.merging.models import Blend, Job
from optimizer.checkpoints.folder import Folder
from optimizer.rendering import load_pipeline
from optimizer.rendering.candidates.in_place import InPlace, base_weights
from optimizer.rendering.candidates.full_weights import live_tensors
pipeline = load_pipeline(base, device="cpu", dtype=torch.bfloat16)
way = InPlace(base_weights(pipeline), live_tensors(pipeline), torch.device("cpu"))
recipe = Recipe(method={method!r}, weights=(0.6, 0.4), {"density=0.5" if method == "ties" else ""})
blend = Blend(Job((Folder(a), Folder(b)), base=Folder(base), recipe=recipe))
def job():
    with way.applied(blend):
        pass
measured(job)
"""
        for method in ("linear", "ties")
    },
}


def main() -> None:
    """Print one line a job."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_models", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny models, to try the command out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where there is room; a temporary folder where not given")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        places = _models(Path(name), small=asked.small)
        size = sum(path.stat().st_size for path in places[0].rglob("*") if path.is_file())
        print(f"models of {size / 1e9:.1f} GB in bfloat16, {asked.threads} threads")
        print(f"{'':<22}{'time':>10}{'peak':>10}")
        for job, program in _JOBS.items():
            _tell(job, program, places, Path(name) / job.replace(", ", "-").replace(" ", "-"), asked.threads)


def _models(folder: Path, *, small: bool) -> list[Path]:
    """A base, and two models that a training has made of it, as folders: the trained ones first."""
    base = saved("sdxl", folder / "base", device="cpu", small=small)
    trained = []
    for number in (1, 2):
        place = folder / f"model-{number}" / base.name
        subprocess.run(["cp", "-r", str(base.parent), str(place.parent)], check=True)
        for file in sorted(place.rglob("*.safetensors")):
            if file.parent.name != "vae":
                save_file({n: w.roll(number) if w.is_floating_point() else w for n, w in load_file(file).items()}, file)
        trained.append(place)
    return [*trained, base]


def _tell(job: str, program: str, places: list[Path], out: Path, threads: int) -> None:
    words = [str(threads), *map(str, places), str(out)]
    found = subprocess.run([sys.executable, "-c", _WATCH + program, *words], capture_output=True, text=True)
    if found.returncode:
        print(f"{job:<22}failed: {found.stderr.strip().splitlines()[-1]}", flush=True)
        return
    result = json.loads(found.stdout.splitlines()[-1])
    print(f"{job:<22}{result['seconds']:>8.1f} s{result['peak'] / 1e9:>7.2f} GB", flush=True)
    subprocess.run(["rm", "-rf", str(out)], check=True)


if __name__ == "__main__":
    main()
