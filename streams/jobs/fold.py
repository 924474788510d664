"""The state of a job: the fold of its events in offset order."""

from mystocks.v1.job_types_pb2 import Job
from schemas.jobs import FINAL_STATES


class JobFold:
    """Folds the events of one job.

    Events of lower attempts than one already seen are ignored, and the first final event wins.

    Attributes:
        job: As it is now; None before the first event.
    """

    def __init__(self) -> None:
        self.job: Job | None = None

    @property
    def ended(self) -> bool:
        """Whether the job is in a final state."""
        return self.job is not None and self.job.state in FINAL_STATES

    def apply(self, job: Job) -> bool:
        """Takes an event; returns whether it changed anything."""
        if self.ended or (self.job is not None and job.attempt < self.job.attempt):
            return False
        self.job = job
        return True
