"""The models that families and spaces share. Each is opened, and its libraries are imported, when first needed."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Params

if TYPE_CHECKING:
    from pipeline.diffcomp import DiffComp
    from pipeline.encoders.dual.interface import ImageTextEncoder
    from pipeline.encoders.embedding.shared_blocks import SharedBlocks
    from pipeline.encoders.mllm.interface import Generator, Mllm, Verifier
    from pipeline.encoders.text import TextEncoder
    from pipeline.peers import Peer
    from pipeline.query.describer import Describer

DIFFCOMP = Path("models/diffcomp")
"""Holds a folder for every trained variant."""
PEERS = Path("models/peers")
"""Holds a folder for every trained peer."""


class Models:
    """The models that the parameters name. Whoever shares this object shares the models."""

    def __init__(self, params: Params):
        self.params = params
        self._variants: dict[str, DiffComp] = {}
        self._peers: dict[str, Peer] = {}

    @cached_property
    def embedder(self) -> Mllm:
        """f_M where it embeds."""
        from pipeline.encoders.mllm.open import open_mllm

        return open_mllm(self.params.embedder, self.params.jobs, self.params.runtime.device)

    @cached_property
    def writer(self) -> Generator:
        """f_M where it describes."""
        from pipeline.encoders.mllm.open import open_mllm

        return open_mllm(self.params.describer, self.params.jobs, self.params.runtime.device)

    @cached_property
    def verifier(self) -> Verifier:
        """f_M where it verifies answers."""
        from pipeline.encoders.mllm.open import open_mllm

        return open_mllm(self.params.reranker, self.params.jobs, self.params.runtime.device)

    @cached_property
    def describer(self) -> Describer:
        """f_M's texts about the queries."""
        from pipeline.query.describer import Describer

        return Describer(self.params, lambda: self.writer)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """E_text, which conditions Fusion-Diff."""
        from pipeline.encoders.text import open_text_encoder

        return open_text_encoder(self.params.text_encoder, lambda: self.embedder, self.params.runtime.device)

    @cached_property
    def backbone(self) -> ImageTextEncoder:
        """The image-text backbone that DiffComp starts from, untouched."""
        from pipeline.encoders.dual.open import load_image_text_encoder
        from pipeline.runtime import device

        section = self.params.diffcomp
        encoder = load_image_text_encoder(section.backbone, section.pretrained, section.image_size)
        return encoder.eval().to(device(self.params.runtime))

    @cached_property
    def shared_blocks(self) -> SharedBlocks:
        """What the variants compute alike of a gallery."""
        from pipeline.encoders.embedding.shared_blocks import SharedBlocks

        return SharedBlocks(max((variant.image_layers for variant in self.params.variants().values()), default=0))

    def diffcomp(self, name: str) -> DiffComp:
        """A trained variant. Raises ArtifactError when it is missing or does not fit its backbone."""
        from pipeline.diffcomp import load_diffcomp
        from pipeline.encoders.dual.open import load_dual_encoder
        from pipeline.runtime import device

        if name not in self._variants:
            section = self.params.variants()[name]
            encoder = load_dual_encoder(section.backbone, section.pretrained, section.image_size)
            self._variants[name] = load_diffcomp(self.diffcomp_folder(name), encoder).to(device(self.params.runtime))
        return self._variants[name]

    def diffcomp_folder(self, name: str) -> Path:
        """Where a variant's weights are, or will be."""
        return DIFFCOMP / name

    def peer(self, name: str) -> Peer:
        """A trained peer. Raises ArtifactError when it is missing or was trained over another backbone."""
        from pipeline.peers import load_peer
        from pipeline.runtime import device

        if name not in self._peers:
            self._peers[name] = load_peer(PEERS / name, name, self.backbone, self.params).to(
                device(self.params.runtime)
            )
        return self._peers[name]
