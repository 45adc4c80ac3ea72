"""The fixture's tables, built once a session: nothing here uses the network."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import DataParams
from pipeline.sources.emoji import build_tables
from pipeline.sources.emoji.cldr import Emoji, read_emoji
from pipeline.sources.emoji.fetch import PACKAGES
from tests.sections import section

FIXTURE = Path(__file__).parents[1] / "fixtures" / "emoji"
RAW = Path(__file__).parents[2] / "data" / "raw"


@pytest.fixture(scope="session")
def fixture_folder() -> Path:
    return FIXTURE


@pytest.fixture(scope="session")
def fixture_params() -> DataParams:
    return section(
        DataParams,
        fixture=str(FIXTURE),
        triplets=60,
        triplets_all=200,
        queries_per_kind=20,
        val_queries_per_kind=5,
        val_distractors=10,
    )


@pytest.fixture(scope="session")
def tables(fixture_params: DataParams) -> dict[str, pa.Table]:
    return build_tables(fixture_params, seed=0)


@pytest.fixture(scope="session")
def raw_emoji() -> list[Emoji]:
    """Every character of the real labels package."""
    if not all((RAW / package.tarball).is_file() for package in PACKAGES):
        pytest.skip("data/raw does not hold the packages")
    return read_emoji(RAW)


@pytest.fixture(scope="session")
def raw_folder(raw_emoji: list[Emoji]) -> Path:
    return RAW
