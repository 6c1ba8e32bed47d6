"""What the lake holds of a tape, for rebuilding its position."""

from k2.kafka.gap_records import GapEvent, GapRecord
from k2.kafka.tape_reader import Held
from k2.lake.commit_plan import coverage_of
from k2.lake.query import LakeReader
from k2.lake.tables import open_catalog, require_table
from k2.market import GapClass, IdRange
from k2.settings import Settings

_GAPS = """
    SELECT symbol, first_id, last_id, gap_class, epoch_us(declared_ts_us), epoch_us(repaired_ts_us)
    FROM gaps ORDER BY declared_ts_us
"""

_LAST_TIMES = """
    SELECT symbol, arg_max(epoch_us(trade_ts_us), source_sequence) FROM trades GROUP BY symbol
"""


def lake_holds(settings: Settings) -> tuple[Held, list[GapRecord]]:
    """Return the trades the lake holds, and what was declared and repaired.

    Raises:
        StopError: If there is no lake.
    """
    catalog = open_catalog(
        lake_dir=settings.lake_path, catalog_name=settings.lake_catalog, create=False
    )
    properties = require_table(catalog, "trades").properties
    coverage = coverage_of(properties)
    reader = LakeReader(catalog)
    return Held(coverage, dict(reader.run(_LAST_TIMES).rows)), [
        GapRecord(
            GapEvent.DECLARED if repaired_ts_us is None else GapEvent.REPAIRED,
            symbol,
            IdRange(first_id, last_id),
            GapClass(gap_class),
            "",
            declared_ts_us,
            repaired_ts_us,
        )
        for symbol, first_id, last_id, gap_class, declared_ts_us, repaired_ts_us in reader.run(
            _GAPS
        ).rows
    ]
