"""The kinds of panels k2 uses: what is asked and what it means, in; Grafana's builders, out.

A panel cannot be made without saying what it means, what to do about it, and in which unit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from string import ascii_uppercase
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

RUNBOOK = "docs/operations/runbooks/binance-streaming.md"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

Panel: TypeAlias = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel
P = TypeVar("P", stat.Panel, timeseries.Panel, statetimeline.Panel, table.Panel)


@dataclass(frozen=True)
class Query:
    """What is asked, and how a series of the answer is called (``{{label}}`` is its value)."""

    expression: str
    _: KW_ONLY
    legend: str


@dataclass(frozen=True)
class Told:
    """What a reader is told by the panel's info sign.

    Args:
        meaning: What is shown, and what is usual.
        action: What to do when it is not usual.
        runbook: Heading of the runbook, as its anchor.
    """

    meaning: str
    _: KW_ONLY
    action: str
    runbook: str

    def __str__(self) -> str:
        """Write it as Grafana shows it, in Markdown."""
        return f"{self.meaning}\n\n**What to do:** {self.action}\n\n`{RUNBOOK}#{self.runbook}`"


@dataclass(frozen=True)
class Meaning:
    """How a value is shown that stands for a state."""

    text: str
    _: KW_ONLY
    color: str


def number(
    title: str,
    query: Query,
    *,
    told: Told,
    unit: str,
    limits: Mapping[float, str] | None = None,
    meanings: Mapping[int, Meaning] | None = None,
    width: int = 4,
) -> stat.Panel:
    """Make a panel of one number, or of one for each series.

    Args:
        title: What it is.
        query: What is asked, of now.
        told: What the reader is told.
        unit: One of ``units``.
        limits: Colours from a value on; below the first it is green.
        meanings: What single values stand for.
        width: Columns of the grid.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(str(told))
        .unit(unit)
        .color_mode(BigValueColorMode.BACKGROUND)
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(limits or {}))
        .mappings(_mappings(meanings or {}))
    )
    return _finish(panel, [_target(query).instant()], width=width, height=4)


def lines(
    title: str,
    *queries: Query,
    told: Told,
    unit: str,
    limits: Mapping[float, str] | None = None,
    least: float | None = 0,
    width: int = 8,
) -> timeseries.Panel:
    """Make a panel of lines over time; ``limits`` as for ``number``, drawn as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(str(told))
        .unit(unit)
        .line_width(1)
        .fill_opacity(8)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    if least is not None:
        panel.min(least)
    if limits:
        panel.thresholds(_thresholds(limits))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    return _finish(panel, [_target(query).range() for query in queries], width=width, height=8)


def timeline(
    title: str, query: Query, *, told: Told, meanings: Mapping[int, Meaning], width: int = 8
) -> statetimeline.Panel:
    """Make a panel with a bar for each series, coloured by its state over time."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(str(told))
        .unit(units.NoUnit)
        .show_value(VisibilityMode.NEVER)
        .mappings(_mappings(meanings))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds({}))
    )
    return _finish(panel, [_target(query).range()], width=width, height=8)


def rows(
    title: str, query: Query, *, told: Told, columns: Sequence[str], width: int = 12
) -> table.Panel:
    """Make a table with a row for each series and the named labels as its columns."""
    shown = list(columns)
    order = {name: place for place, name in enumerate(shown)}
    panel = (
        table.Panel()
        .title(title)
        .description(str(told))
        .unit(units.NoUnit)
        .with_transformation(
            DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": shown}}
            )
        )
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"indexByName": order})
        )
    )
    target = _target(query).instant().format(PromQueryFormat.TABLE)
    return _finish(panel, [target], width=width, height=8)


def _target(query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.legend)


def _finish(panel: P, targets: Sequence[prometheus.Dataquery], *, width: int, height: int) -> P:
    for letter, target in zip(ascii_uppercase, targets, strict=False):
        panel.with_target(target.ref_id(letter).datasource(SOURCE))
    panel.datasource(SOURCE).span(width).height(height)
    return panel


def _thresholds(limits: Mapping[float, str]) -> dashboard.ThresholdsConfig:
    steps = [Threshold(None, GREEN), *(Threshold(at, color) for at, color in limits.items())]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(meanings: Mapping[int, Meaning]) -> list[ValueMapping]:
    if not meanings:
        return []
    return [
        ValueMap(
            {
                str(state): ValueMappingResult(meaning.text, meaning.color, index=place)
                for place, (state, meaning) in enumerate(meanings.items())
            }
        )
    ]
