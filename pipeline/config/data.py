"""Where images, texts and benchmarks come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.config.checks import require

PUBLIC_BENCHMARKS = ("fashioniq", "cirr", "circo", "genecis")


@dataclass
class FashionIQParams:
    folder: str = "data/raw/fashioniq"
    splits: list[str] = field(default_factory=lambda: ["val"])
    categories: list[str] = field(default_factory=lambda: ["dress", "shirt", "toptee"])
    caption_order: str = "both"
    """How the two captions become one text: forward ("first and second") | reversed | both, whose scores are averaged."""

    def __post_init__(self) -> None:
        allowed = ("forward", "reversed", "both")
        require(
            self.caption_order in allowed,
            f"data.fashioniq.caption_order: {self.caption_order!r} is not one of {', '.join(allowed)}",
        )
        wrong = set(self.categories) - {"dress", "shirt", "toptee"}
        require(not wrong, f"data.fashioniq.categories: {sorted(wrong)} are no categories of FashionIQ")


@dataclass
class CirrParams:
    folder: str = "data/raw/cirr"
    splits: list[str] = field(default_factory=lambda: ["val", "test1"])


@dataclass
class CircoParams:
    folder: str = "data/raw/circo"
    splits: list[str] = field(default_factory=lambda: ["val", "test"])


@dataclass
class GeneCISParams:
    folder: str = "data/raw/genecis"
    tasks: list[str] = field(
        default_factory=lambda: ["focus_attribute", "change_attribute", "focus_object", "change_object"]
    )

    def __post_init__(self) -> None:
        wrong = set(self.tasks) - {f"{verb}_{what}" for verb in ("focus", "change") for what in ("attribute", "object")}
        require(not wrong, f"data.genecis.tasks: {sorted(wrong)} are no tasks of GeneCIS")


@dataclass
class WebParams:
    """Web-scale sources, each in the folder of its name below `data.raw` (README: Pairs of your own)."""

    pairs: list[str] = field(default_factory=lambda: ["cc3m", "cc12m", "journeydb", "sa1b"])
    """Of cc3m, cc12m, journeydb, sa1b, webdataset (any such archives) and folder (images and a CSV)."""
    edits: list[str] = field(default_factory=lambda: ["hqedit"])
    max_rejected_share: float = 0.01
    """Share of images that may be refused before the stage fails."""

    def __post_init__(self) -> None:
        wrong = set(self.pairs) - {"cc3m", "cc12m", "journeydb", "sa1b", "webdataset", "folder"} | set(self.edits) - {
            "hqedit"
        }
        require(not wrong, f"data.web: {sorted(wrong)} are no sources")
        require(bool(self.pairs) and bool(self.edits), "data.web: pairs and edits must name at least one source each")


@dataclass
class DataParams:
    sources: str = "emoji"
    """emoji | web: what `web` lists."""
    raw: str = "data/raw"
    fixture: str = ""
    """A committed folder in the packages' layout, read instead of fetching when not empty."""
    image_size: int = 64
    triplets: int = 6000
    triplets_all: int = 60000
    queries_per_kind: int = 400
    val_queries_per_kind: int = 60
    val_share: float = 0.1
    val_distractors: int = 600
    max_images: int = 0
    """0: all of them."""
    benchmarks: list[str] = field(default_factory=lambda: ["emoji_cir"])
    """What is tested on: emoji_cir and the public ones, each of which is read from its own `folder`."""
    fashioniq: FashionIQParams = field(default_factory=FashionIQParams)
    cirr: CirrParams = field(default_factory=CirrParams)
    circo: CircoParams = field(default_factory=CircoParams)
    genecis: GeneCISParams = field(default_factory=GeneCISParams)
    web: WebParams = field(default_factory=WebParams)

    def __post_init__(self) -> None:
        require(self.sources in ("emoji", "web"), f"data.sources: {self.sources!r} is neither emoji nor web")
        allowed = ("emoji_cir", *PUBLIC_BENCHMARKS)
        wrong = [name for name in self.benchmarks if name not in allowed]
        require(not wrong, f"data.benchmarks: {wrong} are not among {', '.join(allowed)}")
        require(bool(self.benchmarks), "data.benchmarks: at least one must be listed")
