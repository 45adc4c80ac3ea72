"""`data`: where images, texts and benchmarks come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from pipeline.config.ranges import Count, CountOrZero, InnerShare, ShareBelowOne
from pipeline.config.section import Section, require

Source = Literal["emoji", "web"]
PublicBenchmark = Literal["fashioniq", "cirr", "circo", "genecis"]
Benchmark = Literal["emoji_cir", "fashioniq", "cirr", "circo", "genecis"]
CaptionOrder = Literal["forward", "reversed", "both"]
FashionIQCategory = Literal["dress", "shirt", "toptee"]
GeneCISTask = Literal["focus_attribute", "change_attribute", "focus_object", "change_object"]
WebPairs = Literal["cc3m", "cc12m", "journeydb", "sa1b", "webdataset", "folder"]
WebEdits = Literal["hqedit"]

PUBLIC_BENCHMARKS: tuple[PublicBenchmark, ...] = get_args(PublicBenchmark)


@dataclass(kw_only=True)
class FashionIQParams(Section):
    """`data.fashioniq`: FashionIQ, 3 categories of clothes with two captions a query."""

    section: ClassVar[str] = "data.fashioniq"

    folder: str
    """The folder of the official annotations and images."""
    splits: list[str]
    """The splits that are read, such as val."""
    categories: list[FashionIQCategory]
    """The categories that are read."""
    caption_order: CaptionOrder
    """How the two captions become one text: forward ("first and second"), reversed, or both, whose scores are
    averaged."""


@dataclass(kw_only=True)
class CirrParams(Section):
    """`data.cirr`: CIRR, images of daily life with one target a query."""

    section: ClassVar[str] = "data.cirr"

    folder: str
    """The folder of the official annotations and images."""
    splits: list[str]
    """The splits that are read, such as val and test1."""


@dataclass(kw_only=True)
class CircoParams(Section):
    """`data.circo`: CIRCO, images of COCO with several targets a query."""

    section: ClassVar[str] = "data.circo"

    folder: str
    """The folder of the official annotations and images."""
    splits: list[str]
    """The splits that are read, such as val and test."""


@dataclass(kw_only=True)
class GeneCISParams(Section):
    """`data.genecis`: GeneCIS, a small gallery for each query."""

    section: ClassVar[str] = "data.genecis"

    folder: str
    """The folder of the official annotations and images."""
    tasks: list[GeneCISTask]
    """The tasks that are read."""


@dataclass(kw_only=True)
class WebParams(Section):
    """`data.web`: web-scale sources, each in the folder of its name below `data.raw`."""

    section: ClassVar[str] = "data.web"

    pairs: list[WebPairs]
    """Sources of image-caption pairs; webdataset: any such archives; folder: images and a CSV."""
    edits: list[WebEdits]
    """Sources of edited images with their instructions, from which triplets come. None: Stage 2 is not trained."""
    max_rejected_share: ShareBelowOne
    """Share of images, in [0, 1), that may be rejected before the stage fails."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.pairs), "data.web.pairs: at least one must be listed")
        for name in ("pairs", "edits"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"data.web.{name}: {values} names a source twice")


@dataclass(kw_only=True)
class DataParams(Section):
    """`data`: what stage `prepare` reads, and how much of it."""

    section: ClassVar[str] = "data"

    sources: Source
    """emoji: drawings from packages, fetched once; web: what `web` lists."""
    raw: str
    """The folder of raw data, which DVC watches: what changes in it makes stage `prepare` run again."""
    fixture: str
    """A folder in the packages' layout that is read instead of fetching; empty: fetch."""
    copy: bool
    """Copy the images of web sources into `data/pairs`; false: refer to the archives, which must stay as they are. What
    lies in compressed archives or in Parquet is copied always."""
    image_size: Count
    """Side of the stored images, in pixels."""
    triplets: Count
    """Triplets that are trained on, at most."""
    triplets_all: Count
    """Triplets that are made, from which those are drawn."""
    queries_per_kind: Count
    """Test queries of each kind of modification."""
    val_queries_per_kind: Count
    """Validation queries of each kind."""
    val_share: InnerShare
    """Share of the concepts, in [0, 1], that validation keeps to itself."""
    val_distractors: CountOrZero
    """Images of the validation gallery that are no query's reference or target."""
    max_images: CountOrZero
    """Images that are read at most; 0: all of them."""
    benchmarks: list[Benchmark]
    """What is tested on: emoji_cir and the public ones, each of which is read from its own `folder`. Empty: models are
    trained, and nothing is ranked."""
    fashioniq: FashionIQParams
    cirr: CirrParams
    circo: CircoParams
    genecis: GeneCISParams
    web: WebParams

    def __post_init__(self) -> None:
        super().__post_init__()
        repeated = len(set(self.benchmarks)) < len(self.benchmarks)
        require(not repeated, f"data.benchmarks: {self.benchmarks} names a benchmark twice")
