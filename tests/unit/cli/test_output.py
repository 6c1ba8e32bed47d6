"""How answers are printed: as they are, whatever is in them."""

import pytest

from k2.cli.output import print_table


@pytest.mark.parametrize("text", ["[/b]", "[red]x", "[a-z]+", "\\[bold]", ":warning:", "a]["])
def test_a_table_shows_text_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    print_table([f"name {text}"], [(text,), (None,), (7,)])
    lines = [line.strip("│┃ ") for line in capsys.readouterr().out.splitlines()]
    assert f"name {text}" in lines
    assert text in lines
    assert "7" in lines
