"""One launch of one stage: which partition, for which run, and the command that materializes it."""

from dataclasses import dataclass

from mm_assets.launchers.environment import Placement


@dataclass(frozen=True, kw_only=True, slots=True)
class StageRequest:
    """What a worker process is asked to do.

    ``attempt`` names this launch among all launches of the run; ``placement`` is set where the worker runs in a pod
    and has to record its environment.
    """

    asset: str
    release: str
    shard: str | None
    force: bool
    run_id: str
    attempt: str
    placement: Placement | None = None

    @property
    def name(self) -> str:
        """``asset release[/shard]``, as error messages say it."""
        return f"{self.asset} {self.release}" + (f"/{self.shard}" if self.shard is not None else "")

    @property
    def messages_prefix(self) -> str:
        """Key prefix in the store under which the worker's messages travel."""
        return f"pipes/{self.run_id}/{self.attempt}"

    def command(self, python: str = "python") -> list[str]:
        """The worker's command line; nothing secret is ever on it."""
        command = [python, "-m", "mm_assets.entrypoint", "--asset", self.asset, "--release", self.release]
        if self.shard is not None:
            command += ["--shard", self.shard]
        if self.force:
            command += ["--force"]
        command += ["--run-id", self.run_id]
        if self.placement is not None:
            command += ["--placement", self.placement.encode()]
        return command
