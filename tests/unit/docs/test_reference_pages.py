import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def _pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location(
        "reference_pages", ROOT / "scripts" / "reference_pages.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: page() for name, page in module.PAGES.items()}


@pytest.mark.parametrize("name", ["metrics.md", "settings.md"])
def test_the_pages_made_from_the_code_are_up_to_date(name: str) -> None:
    written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert written == _pages()[name], "python scripts/reference_pages.py"
