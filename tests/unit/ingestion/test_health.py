import pytest

from k2.ingestion.health import Problem, status_of

BAD = Problem("bad", "kafka_away", "")
WARN = Problem("warn", "leg_down", "")


@pytest.mark.parametrize(
    ("problems", "status"),
    [([], "healthy"), ([WARN], "degraded"), ([BAD], "unhealthy"), ([WARN, BAD], "unhealthy")],
)
def test_the_worst_problem_makes_the_status(problems: list[Problem], status: str) -> None:
    assert status_of(problems) == status
