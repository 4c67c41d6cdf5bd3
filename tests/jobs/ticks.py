"""Progress callbacks for tests of jobs: one that counts, one that stops the job."""

from __future__ import annotations

from dataclasses import dataclass, field


class Stop(Exception):
    """Stops a job."""


@dataclass
class Ticks:
    """Records the progress of a job.

    Attributes:
        stop_at: number of steps after which the job is stopped; 0 lets it run.
        seen: steps done and steps in all, call by call.
    """

    stop_at: int = 0
    seen: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))
        if self.stop_at and done >= self.stop_at:
            raise Stop

    @property
    def complete(self) -> bool:
        """Whether the steps were counted upwards to the last one."""
        done = [step for step, _ in self.seen]
        return done == sorted(done) and self.seen[-1][0] == self.seen[-1][1] and len({total for _, total in self.seen}) == 1
