"""``k2 config``: the settings that commands of this folder follow."""

from pathlib import Path

from cyclopts import App

from k2.cli.output import TEXT, Output
from k2.cli.session import session
from k2.ingestion.supervision import ExitCode

config = App(
    name="config",
    help="The settings in force: environment over what k2 up ran last over default.",
    help_epilogue="Examples:\n\n  k2 config show\n\n  k2 config show --json",
)


@config.command
def show(*, state_dir: Path | None = None, output: Output = TEXT) -> int:
    """Show every setting that `k2 verify` and the other reading commands follow here.

    In a pipe as NAME=value lines. A service follows its environment alone: `k2 stream
    --print-config`. Examples: `k2 config show`, `k2 config show --json`.

    Args:
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.shown_settings import print_settings  # noqa: PLC0415 - `--help` stays fast

    print_settings(session({"state_dir": state_dir}), as_json=output.as_json)
    return ExitCode.CLEAN
