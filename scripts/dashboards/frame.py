"""What all dashboards of k2 have in common: the choices on top, the order of the panels."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
)
from scripts.dashboards.panels import SOURCE, Panel


def board(
    *, uid: str, title: str, description: str, variables: Sequence[dashboard.QueryVariable]
) -> dashboard.Dashboard:
    """Begin a dashboard: its source can be chosen, and the other dashboards are a click away."""
    one = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["k2"])
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("utc")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("k2")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["k2"])
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
    )
    for variable in variables:
        one.with_variable(variable)
    return one


def choice(name: str, *, of_metric: str) -> dashboard.QueryVariable:
    """Make a variable that picks values of a label; the beginning is all of them."""
    query = f"label_values({of_metric}, {name})"
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def fill(one: dashboard.Dashboard, sections: Mapping[str, Sequence[Panel]]) -> dashboard.Dashboard:
    """Add the panels under their headings, left to right; each gets a number of its own."""
    number = 0
    for heading, panels in sections.items():
        number += 1
        one.with_row(dashboard.Row(heading).id(number))
        for panel in panels:
            number += 1
            one.with_panel(panel.id(number))
    return one
