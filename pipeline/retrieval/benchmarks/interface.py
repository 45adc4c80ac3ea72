"""What a benchmark is: its name, what its protocol leaves out, its official scores and its server's files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.retrieval.protocols import Ids
from pipeline.retrieval.queries import Query
from pipeline.retrieval.rankings import Ranking
from pipeline.retrieval.submissions import Lists, write_files


@dataclass(frozen=True)
class GroundTruth:
    """What ranked lists are scored against: parallel sequences, one entry a query."""

    targets: Ids
    """Every target of a query. Where a protocol knows one, it is the first."""
    references: Sequence[str]
    categories: Sequence[str]
    subsets: Ids
    """The ids of a query's group or of its own small gallery; empty where it has none."""
    aspects: Ids | None = None
    """The semantic aspects of a query; None where they are not annotated."""

    @classmethod
    def of(cls, queries: Sequence[Query], aspects: Ids | None = None) -> GroundTruth:
        """What the queries' own fields say."""
        return cls(
            [query.target_ids for query in queries],
            [query.reference_id for query in queries],
            [query.category for query in queries],
            [query.subset_ids for query in queries],
            aspects,
        )


class Benchmark(ABC):
    """One benchmark: facts as class attributes, the protocol as methods.

    A list here has no ties: its order counts. The lists that this library makes break a tie between equal
    scores by gallery order, in galleries, groups and small galleries alike (`Index`), and the gallery order
    is that of the official files.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    public: ClassVar[bool] = True
    """Whether a reader of `pipeline.sources.benchmarks` reads its official annotations."""
    labels: ClassVar[Mapping[str, str]] = {}
    """Folder below data/benchmarks -> how a report calls it, where the folder's words do not do."""

    excludes_reference: ClassVar[bool] = True
    """Whether the reference is taken out of the gallery; some official protocols leave it in."""
    scores_groups: ClassVar[bool] = False
    """Whether the ranking within a query's group, its subset, is scored besides the ranking of the gallery."""
    own_galleries: ClassVar[bool] = False
    """Whether the subset is a query's own small gallery, and its ranking alone is scored."""
    details: ClassVar[frozenset[str]] = frozenset()
    """Entries of `score` that are too long for a table."""

    id_types: ClassVar[tuple[type, ...]] = (str,)
    """How its files write image ids."""
    server_split: ClassVar[str] = ""
    """The split that an evaluation server scores; empty: there is no server."""

    @abstractmethod
    def score(self, truth: GroundTruth, ranked: Ids = (), subset_ranked: Ids = ()) -> dict[str, Any]:
        """The official scores in percent.

        Args:
            truth: The ground truth of Q queries.
            ranked: Q ranked lists of image ids, best first. Empty: there are none.
            subset_ranked: Q ranked lists within the queries' subsets. Empty: there are none.

        Raises:
            ValueError: A query has no target or no list.
        """

    def remark(self, scores: Mapping[str, Any]) -> str:
        """What a reader of `scores` should know; empty: nothing."""
        return ""

    def read_header(self, content: dict[str, Any]) -> bool:
        """Remove from a file's content what is no ranked list; say whether its lists rank within the subsets.

        Raises:
            PredictionError: The header is wrong.
        """
        return False

    def server_files(
        self, name: str, ranked: Lists, subset_ranked: Lists, references: Mapping[str, str]
    ) -> dict[str, dict[str, Any]]:
        """File name -> content, as the evaluation server takes it; nothing where there is no server.

        Args:
            name: What the files' names begin with.
            ranked: Query id -> ranked image ids.
            subset_ranked: Query id -> ranked image ids within the subset.
            references: Query id -> the reference.

        Raises:
            PredictionError: A list is too short or names an image twice.
        """
        return {}

    def write_submissions(
        self, folder: Path, name: str, queries: Sequence[Query], rankings: Sequence[Ranking]
    ) -> list[Path]:
        """Write the server's files of one method into `folder` and return their paths.

        Raises:
            PredictionError: A list is too short or names an image twice.
        """
        ranked = {ranking.query_id: list(ranking.ranked_ids) for ranking in rankings}
        subset_ranked = {ranking.query_id: list(ranking.subset_ranked_ids) for ranking in rankings}
        references = {query.query_id: query.reference_id for query in queries}
        return write_files(folder, self.server_files(name, ranked, subset_ranked, references))
