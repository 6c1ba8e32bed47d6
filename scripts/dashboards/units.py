"""The units of the panels, by what they are here."""

from grafana_foundation_sdk.models import units

NONE = units.NoUnit
SECONDS = units.Seconds
BYTES = units.BytesIEC
SHARE = units.PercentUnit
MESSAGES_PER_SECOND = units.MessagesPerSecond
RECORDS_PER_SECOND = units.RecordsPerSecond
ROWS_PER_SECOND = units.RowsPerSecond
PER_SECOND = units.CountsPerSecond
COUNT = units.Short
