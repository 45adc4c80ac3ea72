"""DiffComp: a dual encoder trained to compose an image with a text (algorithm 1).

Its parts are CSS (`superpatches`), PSM (`masking`) and DAC (`composition`). The supplement cites equations that are
not available, so each part states this project's form of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config import DiffCompParams
from pipeline.diffcomp import masking
from pipeline.diffcomp.batch import Batch, Phrases
from pipeline.diffcomp.composition import Composition
from pipeline.diffcomp.losses import Negatives, info_nce, inverse_temperature, ratio_loss
from pipeline.diffcomp.superpatches import SuperPatches
from pipeline.encoders.dual.interface import DualEncoder


@dataclass(frozen=True)
class Views:
    """An image as it is and as it looks masked. B images, N_s super-patches, D joint width."""

    image: Tensor
    """f_I [B, D]."""
    masked_image: Tensor
    """f_Id [B, D]."""
    masked_super_patches: Tensor | None
    """f_j^d [B, N_s, D], where the composition reads them."""
    mask: Tensor
    """m_j [B, N_s]; one means masked."""


class DiffComp(nn.Module):
    """Super-patches, phrase-guided masking and difference-aware composition over a dual encoder.

    It freezes all of the encoder but its last blocks, norms and projections. Ablations: css = False takes plain
    patches, psm = False random masks, dac = False one linear interpolation.

    Args:
        encoder: The backbone, which becomes a part of the model.
        params: What this variant is.

    Raises:
        ValueError: Sizes do not fit the encoder, or each other.
    """

    def __init__(self, encoder: DualEncoder, params: DiffCompParams):
        super().__init__()
        self.params = params
        self.encoder = encoder
        self.super_patches = SuperPatches(
            encoder, params.super_patch, params.local_blocks, params.grouping, plain=not params.css
        )
        self.masking = params.masking if params.psm else "random"
        if self.masking == "crop" and self.super_patches.kmeans:
            raise ValueError("masking crop needs a grid of super-patches, grouping kmeans has none")
        self.composition = Composition(
            params.dac, params.alpha_base, params.lam, params.alpha_form, params.kappa, params.alpha_query
        )
        # Where relatives fill, the token stays as drawn, near zero: patches without content (`compose`'s region).
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.width), requires_grad=params.fill == "token")
        encoder.freeze_all_but(params.image_layers, params.text_layers)
        encoder.gradient_checkpointing = params.gradient_checkpointing

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The training loss L = L_comp + w_align L_align + w_ratio L_ratio, its terms, and what they show.

        L_comp is InfoNCE between f_comp and f_I, with the relatives as further negatives; L_align is InfoNCE between
        f_I and f_T; L_ratio is the penalty on the masked share.

        Args:
            batch: Captioned images.
            generator: What masks are drawn with.

        Returns:
            Scalars: loss, comp, align, ratio, masked_share, cos_aligned, cos_masked, kappa.

        Raises:
            ValueError: Phrase masking got no phrases.
        """
        phrases = batch.phrases if self.masking == "phrase" else None
        texts, composed, guides = self._encode_texts(
            batch.text_ids, batch.composition_ids, None if phrases is None else phrases.ids
        )
        offsets = None if phrases is None else phrases.offsets
        relatives = None if batch.relatives is None else batch.relatives.images
        views = self.views(batch.images, guides, offsets, generator, relatives)
        composition = self.composition(views.masked_image, views.masked_super_patches, composed)
        negatives = None
        if batch.relatives is not None:
            negatives = Negatives(self.encoder.encode_image(batch.relatives.images), batch.relatives.labels)
        scale = inverse_temperature(self.encoder.logit_scale)
        terms = {
            "comp": info_nce(composition, views.image, scale, batch.labels, negatives),
            "align": info_nce(views.image, texts, scale, batch.labels),
            "ratio": ratio_loss(views.mask, self.params.rho),
        }
        loss = terms["comp"] + self.params.w_align * terms["align"] + self.params.w_ratio * terms["ratio"]
        with torch.no_grad():
            shown = {
                "masked_share": views.mask.mean(),
                "cos_aligned": (views.image * texts).sum(-1).mean(),
                "cos_masked": (views.masked_image * texts).sum(-1).mean(),
                "kappa": self.composition.log_kappa.exp(),
            }
        return {"loss": loss, **terms, **shown}

    def _encode_texts(
        self, texts: Tensor, composed: Tensor | None, phrases: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """All of a batch's texts through the text tower at once, each distinct one only once."""
        parts = [part for part in (texts, composed, phrases) if part is not None]
        distinct, index = torch.cat(parts).unique(dim=0, return_inverse=True)
        features = iter(self.encoder.encode_text(distinct)[index].split([len(part) for part in parts]))
        whole = next(features)
        return whole, whole if composed is None else next(features), None if phrases is None else next(features)

    def views(
        self,
        images: Tensor,
        phrases: Tensor | None,
        offsets: Tensor | None,
        generator: torch.Generator | None,
        relatives: Tensor | None = None,
    ) -> Views:
        """Encode the images unmasked, draw masks, encode them masked.

        The unmasked pass shares its first L - k blocks between f_I and f_j, and computes f_j only where masking
        reads it; frozen blocks keep no graph there. The masked pass needs one through all blocks: the mask token,
        and the masks of PSM, are learned through it.

        Args:
            images: Normalised [B, 3, H, W].
            phrases: Features of all phrases [P, D]; None where masking reads none.
            offsets: Where each image's phrases begin [B + 1].
            generator: What masks are drawn with.
            relatives: Normalised [B, 3, H, W], what fills the masks; None: the mask token.

        Returns:
            The features of both passes, and the mask.

        Raises:
            ValueError: Phrase masking got no phrases.
        """
        css, encoder = self.super_patches, self.encoder
        patches = encoder.patchify(images)  # [B, N, W]
        before, after = self._trunk(encoder.assemble(patches))
        image = encoder.project(after[:, 0])
        assignment = css.assign(before)
        scores = self._scores(before, after, assignment, image, phrases, offsets)
        mask = self._draw(scores, len(images), generator).to(images.device)
        fill = self.mask_token if relatives is None else encoder.patchify(relatives)
        masked = masking.apply_mask(patches, fill, css.spread(mask, assignment))
        before, after = self._trunk(encoder.assemble(masked))
        local = css.encode(encoder, before, after, assignment) if self.composition.dac else None
        return Views(image, encoder.project(after[:, 0]), local, mask)

    def _trunk(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1 + N, W] -> the tokens at block L - k and at block L."""
        before = self.encoder.run(tokens, 0, self.super_patches.cut)
        return before, self.encoder.run(before, self.super_patches.cut, self.encoder.depth)

    def _scores(
        self,
        before: Tensor,
        after: Tensor,
        assignment: Tensor,
        image: Tensor,
        phrases: Tensor | None,
        offsets: Tensor | None,
    ) -> Tensor | None:
        """z_j [B, N_s], or None where masks are drawn blindly."""
        if self.masking == "cam":
            with torch.no_grad():
                return masking.saliency(self.super_patches.encode(self.encoder, before, after, assignment), image)
        if self.masking != "phrase":
            return None
        if phrases is None or offsets is None:
            raise ValueError("phrase masking needs phrases and their offsets")
        with torch.set_grad_enabled(self.params.mask_model != "hard" and torch.is_grad_enabled()):
            local = self.super_patches.encode(self.encoder, before, after, assignment)
            return masking.alignment(*masking.pad_phrases(phrases, offsets), local)

    def _draw(self, scores: Tensor | None, batch: int, generator: torch.Generator | None) -> Tensor:
        """m_j [B, N_s]."""
        rho = self.params.rho
        if scores is not None:
            return masking.draw_mask(
                masking.mask_logits(scores, rho, self.params.tau_mask), self.params.mask_model, rho, generator
            )
        if self.masking == "crop":
            return masking.crop_mask(batch, self.super_patches.shape, rho, generator)
        return masking.random_mask(batch, self.super_patches.count, rho, generator)

    def encode_image(self, images: Tensor) -> Tensor:
        """f_I, which the gallery holds: normalised [B, 3, H, W] -> [B, D]."""
        return self.encoder.encode_image(images)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """f_T: token ids [B, C] -> [B, D]."""
        return self.encoder.encode_text(token_ids)

    def reference_features(self, images: Tensor, region: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """What the composition reads of reference images.

        Args:
            images: Normalised [B, 3, H, W].
            region: [B, H', W']; super-patches that it covers count as masked (`SuperPatches.cover`). None: nothing is.

        Returns:
            f_I [B, D], f_j [B, N_s, D], and the super-patch of every patch [B, N].
        """
        before, after = self._trunk(self.encoder.embed_patches(images))
        assignment = self.super_patches.assign(before)
        if region is not None:
            mask = self.super_patches.spread(self.super_patches.cover(region.to(images.device), assignment), assignment)
            before, after = self._trunk(
                self.encoder.assemble(masking.apply_mask(self.encoder.patchify(images), self.mask_token, mask))
            )
        return (
            self.encoder.project(after[:, 0]),
            self.super_patches.encode(self.encoder, before, after, assignment),
            assignment,
        )

    def compose(self, images: Tensor, text_ids: Tensor, region: Tensor | None = None) -> Tensor:
        """f_comp of queries. Call it in evaluation mode.

        Args:
            images: The references, normalised [B, 3, H, W].
            text_ids: The modifications [B, C].
            region: [B, H', W']; where it is painted on the references, they count as masked.

        Returns:
            [B, D], L2-normalised.
        """
        text = self.encode_text(text_ids)
        if not self.composition.dac and region is None:
            return self.composition(self.encode_image(images), None, text)
        image, local, _ = self.reference_features(images, region)
        return self.composition(image, local, text)

    @torch.no_grad()
    def alpha_map(self, images: Tensor, text_ids: Tensor, region: Tensor | None = None) -> Tensor:
        """How much of the reference is kept where (figure 5).

        Args:
            images: The references, normalised [B, 3, H, W].
            text_ids: The modifications [B, C].
            region: As for `compose`.

        Returns:
            1 - alpha_j over the patches [B, h, w].
        """
        _, local, assignment = self.reference_features(images, region)
        kept = 1 - self.composition.weights(local, self.encode_text(text_ids))
        return self.super_patches.spread(kept, assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def mask_map(self, images: Tensor, phrases: Phrases) -> Tensor:
        """PSM's masking probabilities (figure 3), whatever masking this model trains with.

        Args:
            images: Normalised [B, 3, H, W].
            phrases: What guides the masks.

        Returns:
            sigmoid(l_j) over the patches [B, h, w].
        """
        _, local, assignment = self.reference_features(images)
        padded, valid = masking.pad_phrases(self.encode_text(phrases.ids), phrases.offsets)
        logits = masking.mask_logits(masking.alignment(padded, valid, local), self.params.rho, self.params.tau_mask)
        return self.super_patches.spread(logits.sigmoid(), assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def similarities(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """How near images are to their texts, as they are and masked: the histograms of figure 4.

        Args:
            batch: Images, their texts, and what guides the masks.
            generator: What masks are drawn with.

        Returns:
            cos(f_I, f_T) and cos(f_Id, f_T), [B] each.
        """
        phrases = batch.phrases if self.masking == "phrase" else None
        texts, _, guides = self._encode_texts(batch.text_ids, None, None if phrases is None else phrases.ids)
        views = self.views(batch.images, guides, None if phrases is None else phrases.offsets, generator)
        return (views.image * texts).sum(-1), (views.masked_image * texts).sum(-1)
