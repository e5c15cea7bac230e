"""``mm store``: the embedded S3 server of this home."""

import argparse
import shlex

from rich.console import Console

from mm_assets.errors import UsageError
from mm_assets.operations.screen import Outcome
from mm_assets.settings import Settings, read_settings
from mm_assets.store import embedded


def start(args: argparse.Namespace, console: Console) -> Outcome:
    """Starts the server unless it runs already."""
    del args
    settings = _embedded_settings()
    server = embedded.ensure_running(settings.home)
    console.print(f"The embedded store answers at {server.endpoint}.", markup=False)
    return Outcome(result={"running": True, "endpoint": server.endpoint, "pid": server.pid})


def stop(args: argparse.Namespace, console: Console) -> Outcome:
    """Stops the server if it runs."""
    del args
    settings = _embedded_settings()
    stopped = embedded.stop(settings.home)
    console.print("The embedded store is stopped." if stopped else "The embedded store was not running.")
    return Outcome(result={"running": False, "stopped": stopped})


def env(args: argparse.Namespace, console: Console) -> Outcome:
    """Prints ``export`` lines for a shell; starts the embedded server, whose port they name."""
    settings = read_settings()
    if settings.is_embedded:
        variables = embedded.ensure_running(settings.home).environment()
    else:
        variables = {"MM_STORE_URI": settings.store_uri or "", "MM_S3_ENDPOINT": settings.s3_endpoint or ""}
        variables = {name: value for name, value in variables.items() if value}
    if not args.json:
        for name, value in variables.items():
            # Not wrapped, whatever the width: a shell reads these lines.
            console.print(f"export {name}={shlex.quote(value)}", soft_wrap=True, markup=False)
    return Outcome(result=variables)


def _embedded_settings() -> Settings:
    settings = read_settings()
    if not settings.is_embedded:
        raise UsageError(
            f"mm store: the store is {settings.store_uri}, not the embedded one. Unset MM_STORE_URI to control it."
        )
    return settings
