"""A dozen of the cheapest rows of the fault matrix; ``make faults`` runs all of them."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from faults.matrix import Row, all_rows
from faults.runner import run_row
from faults.tape import Tape, Written, judge, last_late_s, worst_pause_s
from k2.local.background import BackgroundStack
from k2.market import StreamKind
from k2.simulator import Ledger, TapeRow

pytestmark = pytest.mark.integration

ROWS = [replace(row, rate=400, symbols=6) for row in all_rows().values() if row.quick]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_no_trade_is_lost_or_doubled_or_out_of_order(stack: BackgroundStack, row: Row) -> None:
    result = run_row(row, stack)
    assert result.problems == [], result.notes


SYMBOL = "BTCUSDT"


def published(data_dir: Path) -> Tape:
    """Publish ten trades; return the tape a faultless capture would have written of them."""
    tape = Tape()
    with Ledger.write(data_dir) as ledger:
        for n in range(10):
            price, quantity = f"{n + 1}.5", "2"
            row = TapeRow(SYMBOL, StreamKind.AGG_TRADE, n, price, quantity, n, n, n, n, True)
            ledger.append([row])
            told = (Decimal(price), Decimal(quantity), n, n, "SELL", 0)
            tape.trades[SYMBOL].append(Written(n, n, 0, n, n - 1 if n else None, False, told))
    return tape


def lose(tape: Tape) -> None:
    """Lose a trade, and make the next one follow the one before, so that only the id tells."""
    written = tape.trades[SYMBOL]
    del written[5]
    written[5] = written[5]._replace(previous_id=4)


def double(tape: Tape) -> None:
    tape.trades[SYMBOL].insert(6, tape.trades[SYMBOL][5])


def disorder(tape: Tape) -> None:
    written = tape.trades[SYMBOL]
    written[5], written[6] = written[6], written[5]


def break_the_chain(tape: Tape) -> None:
    tape.trades[SYMBOL][5] = tape.trades[SYMBOL][5]._replace(previous_id=3)


def change(tape: Tape) -> None:
    one = tape.trades[SYMBOL][5]
    tape.trades[SYMBOL][5] = one._replace(told=(Decimal(7), *one.told[1:]))


def invent(tape: Tape) -> None:
    tape.trades[SYMBOL].append(tape.trades[SYMBOL][9]._replace(source_id=10, previous_id=9))


def stop_early(tape: Tape) -> None:
    del tape.trades[SYMBOL][8:]


def write_what_was_declared(tape: Tape) -> None:
    tape.declared[SYMBOL] = {5}


def repair_what_was_written(tape: Tape) -> None:
    tape.repaired[SYMBOL] = [tape.trades[SYMBOL][5]]


@pytest.mark.parametrize(
    ("spoil", "field", "count"),
    [
        (lose, "lost", 1),
        (double, "doubled", 1),
        (disorder, "out_of_order", 4),
        (break_the_chain, "out_of_order", 1),
        (change, "different", 1),
        (invent, "different", 1),
        (stop_early, "lost", 2),
        (write_what_was_declared, "doubled", 1),
        (repair_what_was_written, "doubled", 1),
    ],
)
def test_the_judge_finds_each_breach(
    tmp_path: Path, spoil: Callable[[Tape], None], field: str, count: int
) -> None:
    tape = published(tmp_path)
    assert judge(tape, tmp_path, {SYMBOL: 9}, fault_began_s=0).kept
    spoil(tape)
    verdict = judge(tape, tmp_path, {SYMBOL: 9}, fault_began_s=0)
    assert getattr(verdict, field) == count
    assert not verdict.kept


def test_a_pause_is_found_at_either_end_and_in_the_middle(tmp_path: Path) -> None:
    tape = published(tmp_path)
    assert worst_pause_s(tape, start_s=0.5, end_s=9) == 1
    assert worst_pause_s(tape, start_s=-4, end_s=9) == 4
    assert worst_pause_s(tape, start_s=0, end_s=15) == 6
    del tape.trades[SYMBOL][4:6]
    assert worst_pause_s(tape, start_s=0, end_s=9) == 3


def test_the_tape_is_live_after_the_last_late_trade(tmp_path: Path) -> None:
    tape = published(tmp_path)
    assert last_late_s(tape) == 0
    tape.trades[SYMBOL][7] = tape.trades[SYMBOL][7]._replace(produced_s=8.5)
    assert last_late_s(tape) == 8.5
