"""Runs of the real command line under random faults; prints what became of their trials.

    python -m tests.workers.chaos --faults 200 [--seed 0] [--only one|disk|crew|database]

Needs PostgreSQL's server, and the right to mount a disk in memory. Trials are evaluated on a fake base; processes, files, disks, signals,
database and connections are real ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.postgres import Server, running
from tests.workers.disks import DAMAGES, Damage, full, small_disk
from tests.workers.ledgers import Findings, Watch, examined, story
from tests.workers.proxy import Proxy
from tests.workers.runs import Job, Process, Sources, make_sources, until
from tests.workers.yard import Yard


@dataclass
class Tally:
    """What was done, and what came of it.

    Attributes:
        faults: number of faults of each kind.
        findings: findings of the studies.
    """

    faults: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)


def one_worker(sources: Sources, folder: Path, faults: int, seed: int, *, budget: int = 12) -> Tally:
    """Kill a run at random instants and start it again until it ends; then the next. Each has to equal the run that nobody killed."""
    lot, tally, number = random.Random(seed), Tally(), 0
    undisturbed = Job(sources, folder / "undisturbed", budget, latency=0.01)
    whole = undisturbed.begin(undisturbed.words(), folder / "undisturbed.log")
    assert whole.popen.wait() == 0, whole.told
    while tally.faults.total() < faults:
        number += 1
        job = Job(sources, folder / f"one-{number}", budget, latency=0.15)
        with Watch(job.out / "evaluations") as watch:
            _killed_until_it_ends(job, lot, tally.faults, faults)
        tally.findings += examined(job, watch, differing=story(job.out) != story(undisturbed.out))
        _progress(tally)
    return tally


def _killed_until_it_ends(job: Job, lot: random.Random, faults: Counter[str], most: int) -> None:
    kills: Counter[int] = Counter()
    while True:
        run = job.begin(job.words(), job.out.with_suffix(".log"))
        if faults.total() < most:
            if lot.random() < 0.8:
                _until_searching(run, job, kills)
                _wait(run, lot.uniform(0, 3))
            else:
                _wait(run, lot.uniform(0, 4))
            if run.code is None:
                run.kill()
                faults["kill -9"] += 1
                continue
        assert run.popen.wait() == 0, run.told
        return


def disk(sources: Sources, folder: Path, faults: int, seed: int, *, budget: int = 12) -> Tally:
    """A run on a slow disk that fills up, and whose files are damaged after the run was killed; what is damaged is repaired."""
    lot, tally, number = random.Random(seed), Tally(), 0
    undisturbed = Job(sources, folder / "undisturbed-disk", budget)
    whole = undisturbed.begin(undisturbed.words(), folder / "undisturbed-disk.log")
    assert whole.popen.wait() == 0, whole.told
    while tally.faults.total() < faults:
        number += 1
        place = folder / f"disk-{number}"
        with small_disk(place) as small:
            job = Job(sources, place / "out", budget, latency=0.15, slow=True, logs=folder / f"disk-{number}-logs")
            with Watch(job.out / "evaluations", timings=False) as watch:
                _damaged_until_it_ends(job, lot, tally.faults, faults, small)
            tally.findings += examined(job, watch, differing=story(job.out) != story(undisturbed.out))
        _progress(tally)
    return tally


def _until_searching(run: Process, job: Job, kills: Counter[int]) -> None:
    """Wait until a run has come to its trials, and, where several have been killed over the same one, until that has ended.

    A trial over which ten workers die fails, which the undisturbed run knows nothing of.

    Args:
        run: it.
        job: what it works on.
        kills: how many runs came so far, by the number of trials that had ended.
    """
    ended = _ended(job)
    kills[ended] += 1
    until(lambda: run.searching or run.code is not None)
    if kills[ended] > 6:
        until(lambda: _ended(job) > ended or run.code is not None)


def _ended(job: Job) -> int:
    return len(list((job.out / "evaluations" / "trials").glob("0*.json")))


def _damaged_until_it_ends(job: Job, lot: random.Random, faults: Counter[str], most: int, small: bool) -> None:
    kills: Counter[int] = Counter()
    while True:
        run = job.begin(job.words(), job.log("run"))
        if faults.total() < most:
            _until_searching(run, job, kills)
            _wait(run, lot.uniform(0, 6))
            if run.code is None and small and lot.random() < 0.3:
                faults["disk full"] += _filled(run, job)
                continue
            if run.code is None:
                run.kill()
                faults["kill -9 on a slow disk"] += 1
                _damaged(job, lot.choice(DAMAGES), lot, faults)
                continue
        assert run.popen.wait() == 0, run.told
        return


def _filled(run: Process, job: Job) -> int:
    """Let the disk fill up under a run, which has to end and say why, and to refuse to go on before there is room.

    Returns whether it was disturbed: it may have written everything just before.
    """
    with full(job.out.parent):
        if run.popen.wait(120) == 0:
            return 0
        assert run.code == 1, run.told
        assert "No space left on device" in run.told, run.told
        again = job.begin(job.words(), job.log("full"))
        assert again.popen.wait(120) in (1, 2), again.told
        assert "of disk" in again.told or "No space left" in again.told, again.told
    return 1


def _damaged(job: Job, damage: Damage, lot: random.Random, faults: Counter[str]) -> None:
    if not damage.do(job.out, lot):
        return
    faults[damage.kind] += 1
    if damage.repair:
        repair = job.begin(["repair", str(job.out)], job.log("repair"))
        assert repair.popen.wait(120) == 0, repair.told


def crew(sources: Sources, folder: Path, faults: int, seed: int, *, budget: int = 30) -> Tally:
    """A run with three workers of its own, which are killed; now and then all of it, and it is started again."""
    lot, tally, number = random.Random(seed), Tally(), 0
    while tally.faults.total() < faults:
        number += 1
        job = Job(sources, folder / f"crew-{number}", budget, latency=0.5)
        with Watch(job.out / "evaluations") as watch:
            _crew_until_it_ends(job, lot, tally.faults, faults)
        tally.findings += examined(job, watch, differing=_repeated(job, "repeated") != story(job.out))
        _progress(tally)
    return tally


def _crew_until_it_ends(job: Job, lot: random.Random, faults: Counter[str], most: int) -> None:
    run = job.begin(job.words("--workers", "3"), job.out.with_suffix(".log"))
    while run.code is None:
        _wait(run, lot.uniform(0.3, 2))
        others = [pid for pid in _worker_pids(job.out) if pid != run.popen.pid]
        if faults.total() >= most or run.code is not None:
            run.popen.wait()
        elif lot.random() < 0.15:
            run.kill()
            faults["kill -9 of the run"] += 1
            run = job.begin(job.words("--workers", "3"), job.out.with_suffix(".log"))
        elif others and _sent(lot.choice(others), signal.SIGKILL):
            faults["kill -9"] += 1
    assert run.code == 0, run.told


def _worker_pids(out: Path) -> list[int]:
    """Process numbers in the registry."""
    found = []
    for file in sorted((out / "workers").glob("[!.]*.json")):
        with suppress(FileNotFoundError):
            found.append(json.loads(file.read_bytes())["pid"])
    return found


def _sent(pid: int, number: int) -> bool:
    """Send a signal to a process, if it is one of this program's."""
    try:
        if b"optimizer" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        os.kill(pid, number)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return True


def database(server: Server, sources: Sources, folder: Path, faults: int, seed: int, *, budget: int = 40, outage: float = 30.0) -> Tally:
    """A run and workers on a database, and everything that can go wrong there; one long outage a study."""
    lot, tally, number = random.Random(seed), Tally(), 0
    while tally.faults.total() < faults:
        number += 1
        with ExitStack() as stack:
            proxy = stack.enter_context(Proxy(server.port))
            address = server.database()
            through = server.url(address.rpartition("/")[2], proxy.port)
            place = folder / f"database-{number}"
            job = Job(sources, place / "out", budget, latency=1.0, storage=through, artifacts=str(place / "artifacts"))
            watch = stack.enter_context(Watch(place / "artifacts" / "evaluations"))
            yard = Yard(job, server, proxy, lot, tally.faults, faults, outage)
            yard.work()
        direct = dataclasses.replace(job, storage=address)
        tally.findings += examined(direct, watch, differing=_repeated(direct, "repeated") != story(job.out))
        _progress(tally)
    return tally


def _repeated(job: Job, name: str) -> object:
    """The report of a run that finds all trials of a study done, and makes the rest anew."""
    again = dataclasses.replace(job, out=job.out.with_name(f"{job.out.name}-{name}"), latency=0.0)
    if not job.storage:
        shutil.copytree(job.out, again.out)
        for file in ("summary.json", "report.html", "trials.csv"):
            (again.out / file).unlink()
        shutil.rmtree(again.out / "best")
    run = again.begin(again.words(), again.out.with_suffix(".log"))
    assert run.popen.wait() == 0, run.told
    return story(again.out)


def _progress(tally: Tally) -> None:
    print(f"{tally.faults.total()} faults: {tally.findings}", file=sys.stderr, flush=True)


def _wait(run: Process, seconds: float) -> None:
    end = time.monotonic() + seconds
    while run.code is None and time.monotonic() < end:
        time.sleep(0.01)


def table(tallies: dict[str, Tally]) -> str:
    """The figures, as Markdown."""
    names = [f.name for f in dataclasses.fields(Findings)]
    lines = [f"| scenario | faults | {' | '.join(names)} |", f"|---|{'---|' * (len(names) + 1)}"]
    whole = Tally()
    for tally in tallies.values():
        whole.faults, whole.findings = whole.faults + tally.faults, whole.findings + tally.findings
    for name, tally in {**tallies, "all": whole}.items():
        lines.append(f"| {name} | {tally.faults.total()} | {' | '.join(str(getattr(tally.findings, n)) for n in names)} |")
    kinds = ", ".join(f"{count} × {kind}" for kind, count in whole.faults.most_common())
    return "\n".join([*lines, "", f"Faults: {kinds}."])


SCENARIOS = {
    "one": ("one worker", one_worker),
    "disk": ("one worker on a bad disk", disk),
    "crew": ("three workers on one machine", crew),
}


def main() -> int:
    """The command; exits with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("one", "disk", "crew", "database"), help="give all faults to one scenario")
    parser.add_argument("--keep", type=Path, help="folder for everything that the runs leave")
    asked = parser.parse_args()
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    sources = make_sources(_made(folder / "sources"))
    share, tallies = asked.faults if asked.only else asked.faults // 5, {}
    for name, (title, scenario) in SCENARIOS.items():
        if asked.only in (None, name):
            tallies[title] = scenario(sources, folder, share, asked.seed)
    if asked.only in (None, "database"):
        with running() as server:
            rest = asked.faults if asked.only else asked.faults - 3 * share
            tallies["three workers on a database"] = database(server, sources, folder, rest, asked.seed)
    print(table(tallies))
    if not asked.keep:
        shutil.rmtree(folder)
    return int(any(tally.findings.broken for tally in tallies.values()))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
