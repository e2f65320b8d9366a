"""Tables on a terminal."""

import pytest

from layerwise.console import one_line, print_table


def test_table__aligns_what_is_asked_for_left__and_counts_columns_of_the_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # two wide letters take four columns, an accent over a letter none
    print_table([("name", "n"), ("漢字", "10"), ("e\u0301", "7"), ("a\nb\udcff", "")], left=1)
    assert capsys.readouterr().out == "name   n\n漢字  10\ne\u0301      7\na?b?\n"
    print_table([("name", "n"), ("漢字", "10"), ("e\u0301", "7")])
    assert capsys.readouterr().out == "name   n\n漢字  10\n   e\u0301   7\n"


@pytest.mark.parametrize("name, shown", [("abcde", "abcde"), ("abcdef", "abcd…"), ("a\x1b[1m", "a?[1m"), ("", "")])
def test_one_line__is_cut_off(name: str, shown: str) -> None:
    assert one_line(name, 5) == shown
    assert one_line("a  b" * 9) == "a  b" * 9
