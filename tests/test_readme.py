"""README's results are those of the last committed run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def between(name: str) -> str:
    return re.search(f"<!-- {name}:begin -->(.*)<!-- {name}:end -->", README, re.S).group(1)


def test_the_results_table_is_the_reports():
    table = (ROOT / "reports/tables/results.md").read_text().split("\n\n")[2]
    assert table.startswith("| method |") and table in between("results")


def test_the_orders_are_the_metrics():
    orders = json.loads((ROOT / "reports/metrics.json").read_text())["orders"]
    rows = re.findall(r"^\| `(\w+)` \| ([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\] \|", between("results"), re.M)
    found = {name: [float(number) for number in numbers] for name, *numbers in rows}
    assert found == {
        name: pytest.approx([order["difference"], order["low"], order["high"]], abs=0.051)
        for name, order in orders.items()
    }


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_linked_file_is_there(link):
    assert (ROOT / link).exists()
