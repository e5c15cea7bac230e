"""Every error the package raises on purpose, on one screen.

Form of a message: ``<which thing>: <what is wrong>: expected ..., got .... <what to do>.`` Each class also
inherits the matching built-in error and takes one message string, so that it survives pickling on its way out
of a worker process.
"""


class MmError(Exception):
    """Base of all errors a user or operator can act on; ``mm`` prints its message without a traceback."""


class SettingsError(MmError, ValueError):
    """The environment or a configuration file is unusable."""


class UsageError(MmError, ValueError):
    """A command was asked for something that does not exist or does not fit; exit status 2."""


class StoreError(MmError, OSError):
    """The store could not answer."""


class StoreUnreachableError(StoreError, ConnectionError):
    """No server answered at the endpoint."""


class StoreDeniedError(StoreError, PermissionError):
    """The server refused the credentials or the right."""


class ObjectMissingError(MmError, LookupError):
    """An object, manifest or ref that should exist does not."""


class ObjectCorruptError(MmError, ValueError):
    """Bytes do not match the digest they are named by."""


class UnknownReleaseError(UsageError, ObjectMissingError):
    """A release was named that is not open."""


class CommitConflictError(MmError, RuntimeError):
    """Another writer moved the ref first: re-read it and rebuild."""


class CommitUnknownError(MmError, RuntimeError):
    """The answer to a commit was lost and could not be read back: run the partition again."""


class NonDeterminismError(MmError, RuntimeError):
    """The same fingerprint produced another manifest."""


class IdentityError(MmError, TypeError):
    """A value has no stable encoding, or code cannot be read statically."""


class DropError(MmError, ValueError):
    """A drop, source description or index breaks its format."""


class SpecError(MmError, ValueError):
    """A release spec, training spec or configuration is unusable."""


class CheckError(MmError, RuntimeError):
    """A stage refused its input because a check failed or never ran."""


class StageError(MmError, RuntimeError):
    """A stage could not compute its outputs from valid inputs."""


class LaunchError(MmError, RuntimeError):
    """A worker process or pod did not finish its stage."""
