"""``k2 dlq``: what could not be used, and what of it can be used after all."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter, validators
from rich.console import Console

from k2.cli.output import TEXT, Output, print_json, print_table
from k2.cli.session import Symbols, session, split_symbols
from k2.ingestion.supervision import ExitCode
from k2.settings import SettingsError

if TYPE_CHECKING:
    from k2.ingestion.dlq_judging import Verdict
    from k2.kafka.letter_reading import LetterFilter

SHOWN = 20
LISTED = 50
LONG = 120

dlq = App(
    name="dlq",
    help="Dead letters: list them, show them, replay what can be read now.",
    help_epilogue=(
        "Examples:\n\n"
        "  k2 dlq list --since 2026-01-14\n\n"
        "  k2 dlq show --type parse --limit 5 --json\n\n"
        "  k2 dlq replay --dry-run\n\n"
        "The files are JSON lines: `cat /tmp/dlq/binance-*.jsonl | jq .`"
    ),
)


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """Which letters are meant."""

    since: Annotated[
        str | None, Parameter(help="Only letters since this date or time (ISO, UTC by default).")
    ] = None
    error_type: Annotated[
        list[str] | None,
        Parameter(name="--type", consume_multiple=True, negative="", help="Only of these types."),
    ] = None
    symbol: Annotated[
        Symbols, Parameter(name=["--symbol", "--symbols"], help="Only of these symbols.")
    ] = None

    def filter(self) -> "LetterFilter":
        """Return what was asked for.

        Raises:
            SettingsError: If ``--since`` is no moment.
        """
        from k2.ingestion.backfill_order import moment  # noqa: PLC0415 - fast `--help`
        from k2.kafka.letter_reading import LetterFilter  # noqa: PLC0415

        try:
            since = moment(self.since) if self.since is not None else None
        except ValueError as exc:
            raise SettingsError(
                f"--since {self.since}: expected a date or time such as 2026-01-14"
            ) from exc
        types = {name for part in self.error_type or [] for name in part.split(",") if name}
        return LetterFilter(since, frozenset(types), frozenset(split_symbols(self.symbol)))


ALL = Wanted()


@dlq.command(name="list")
def dlq_list(*, wanted: Wanted = ALL, state_dir: Path | None = None, output: Output = TEXT) -> int:
    """Count the letters on this machine by day, type and symbol, and show the newest.

    Args:
        wanted: Which letters.
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.dlq_list import list_letters  # noqa: PLC0415 - `k2 --help` stays fast

    directory = session({"state_dir": state_dir}).dead_letter_dir
    found = list_letters(directory, wanted.filter())
    if output.as_json:
        print_json(found)
        return ExitCode.CLEAN
    if found.counts:
        print_table(
            ["day", "type", "symbol", "letters", "newest"],
            [
                (one.day, one.error_type, one.symbol, one.letters, one.newest)
                for one in found.counts
            ],
        )
    _print(f"{found.letters:,} dead letters in {directory}")
    if found.unreadable:
        _print(f"{found.unreadable:,} lines are no letters: a process was killed while writing")
    if found.newest is not None:
        _print(f"newest: {found.newest.timestamp.isoformat()} {found.newest.error}")
    return ExitCode.CLEAN


@dlq.command(name="show")
def dlq_show(
    *,
    wanted: Wanted = ALL,
    limit: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=100_000))] = SHOWN,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Show the newest letters with what they hold.

    Args:
        wanted: Which letters.
        limit: How many.
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.dlq_list import newest_letters  # noqa: PLC0415 - `k2 --help` stays fast

    directory = session({"state_dir": state_dir}).dead_letter_dir
    found = newest_letters(directory, wanted.filter(), limit=limit)
    if output.as_json:
        print_json(found)
        return ExitCode.CLEAN
    for one in found:
        _print(f"{one.timestamp.isoformat()} {one.error_type} {one.symbol or '-'}: {one.error}")
        print_json(one.original_message, indent=False)
    if not found:
        _print(f"no dead letters of that kind in {directory}")
    return ExitCode.CLEAN


@dlq.command(name="replay")
def dlq_replay(
    *,
    wanted: Wanted = ALL,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    kafka_bootstrap: str | None = None,
    state_dir: Path | None = None,
    output: Output = TEXT,
) -> int:
    """Read each letter again with today's decoder; have brought onto the tape what it lacks.

    Only ids that were declared are brought, by the shard's running `k2 stream`, and REST has the
    last word on what they are. Replaying twice does no harm.

    Args:
        wanted: Which letters.
        dry_run: Only say what would be done.
        kafka_bootstrap: Kafka's host:port (KAFKA_BOOTSTRAP).
        state_dir: Where `k2 up` kept everything (K2_STATE_DIR, default var).
        output: Text for people, or JSON.
    """
    from k2.ingestion.dlq_replay import judge_letters, replay  # noqa: PLC0415 - fast `--help`
    from k2.kafka.letter_reading import LetterReader  # noqa: PLC0415

    settings = session({"kafka_bootstrap": kafka_bootstrap, "state_dir": state_dir})
    reader = LetterReader(settings.dead_letter_dir)
    letters = reader.read(wanted.filter())
    verdicts = (judge_letters if dry_run else replay)(settings, letters)
    counts = dict(Counter(one.outcome.value for one in verdicts).most_common())
    if output.as_json:
        print_json({"counts": counts, "unreadable": reader.unreadable, "letters": verdicts})
        return ExitCode.CLEAN
    _show(verdicts)
    summary = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    _print(f"{len(verdicts):,} letters: {summary or 'nothing to do'}")
    return ExitCode.CLEAN


def _show(verdicts: "list[Verdict]") -> None:
    from k2.ingestion.dlq_judging import Outcome  # noqa: PLC0415 - `k2 --help` stays fast

    told = [one for one in verdicts if one.outcome is not Outcome.RECORDED]
    if told:
        print_table(
            ["time", "symbol", "id", "outcome", "why"],
            [
                (one.timestamp, one.symbol, one.source_id, one.outcome.value, one.reason[:LONG])
                for one in told[-LISTED:]
            ],
        )
    if len(told) > LISTED:
        _print(f"the last {LISTED} of {len(told):,} that are not recorded; --json has all")


def _print(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
