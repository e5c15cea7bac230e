"""What an asset body needs from outside: the settings of this process and its store."""

from functools import cached_property

from mm_assets.releases.spec import ReleaseSpec, read_spec
from mm_assets.settings import Settings
from mm_assets.store.objects import Store, open_store


class Workspace:
    """Settings and store of one process; the store is opened on first use, never while definitions load."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._specs: dict[str, ReleaseSpec] = {}

    @cached_property
    def store(self) -> Store:
        """The configured store, or the embedded one."""
        return open_store(self.settings)

    def spec(self, release: str) -> ReleaseSpec:
        """The spec of an open release, read once: a spec never changes."""
        if release not in self._specs:
            self._specs[release] = read_spec(self.store, release)
        return self._specs[release]

    def num_shards(self, release: str) -> int:
        """Number of shards of an open release.

        The code server asks, and it outlives an embedded store that was stopped and started again at another port,
        so a release it does not know yet is looked up through a new client.
        """
        if release not in self._specs:
            self._specs[release] = read_spec(open_store(self.settings), release)
        return self._specs[release].num_shards
