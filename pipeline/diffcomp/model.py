"""DiffComp: a dual encoder trained to compose an image with a text (algorithm 1).

Every equation here is a reconstruction from the supplement's statements; see the modules CSS
(`superpatches`), PSM (`masking`) and DAC (`composition`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.artifacts import load_weights, read_json, save_weights
from pipeline.artifacts.weights import CONFIG, Origin
from pipeline.config import DiffCompParams, as_dict, section_from_dict
from pipeline.diffcomp import masking
from pipeline.diffcomp.composition import Composition
from pipeline.diffcomp.losses import info_nce, inverse_temperature, ratio_loss
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

    Freezes all of the encoder but its last blocks (`params.image_layers`, `params.text_layers`),
    norms and projections. Ablations: css = False takes plain patches, psm = False random masks,
    dac = False one linear interpolation. Raises ValueError for sizes that do not fit the encoder.
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

    # Training -----------------------------------------------------------------------------------

    def forward(
        self,
        images: Tensor,
        text_ids: Tensor,
        composition_ids: Tensor | None = None,
        phrase_ids: Tensor | None = None,
        phrase_offsets: Tensor | None = None,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
        relatives: Tensor | None = None,
        relative_labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Loss L = L_comp + w_align L_align + w_ratio L_ratio, its terms, and what they show.

        images [B, 3, H, W], normalised; text_ids [B, C] the whole captions; composition_ids [B, C]
        what is composed with (None: the captions); phrase_ids [P_total, C] with phrase_offsets
        [B + 1], read by phrase masking only; labels [B] equal where two captions are equal;
        relatives [B, 3, H, W], normalised, with relative_labels [B]: the images that fill what is
        masked, instead of the mask token; f_comp must then tell f_I from theirs too. Raises
        ValueError where phrase masking gets no phrases.
        """
        guided = self.masking == "phrase"
        texts, composed, phrases = self._encode_texts(text_ids, composition_ids, phrase_ids if guided else None)
        views = self.views(images, phrases, phrase_offsets, generator, relatives)
        composition = self.composition(views.masked_image, views.masked_super_patches, composed)
        confused = None if relatives is None else self.encoder.encode_image(relatives)
        scale = inverse_temperature(self.encoder.logit_scale)
        terms = {
            "comp": info_nce(composition, views.image, scale, labels, confused, relative_labels),
            "align": info_nce(views.image, texts, scale, labels),
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
        """Encode the images unmasked, draw masks, encode them masked. phrases [P_total, D], offsets [B + 1].

        The unmasked pass shares its first L - k blocks between f_I and f_j, and computes f_j only
        where masking reads it; frozen blocks keep no graph there. The masked pass needs one through
        all blocks: the mask token, and the masks of PSM, are learned through it.
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
        if self.masking not in ("phrase", "cam"):
            return None
        if self.masking == "phrase" and (phrases is None or offsets is None):
            raise ValueError("phrase masking needs phrase_ids and phrase_offsets")
        learns = self.masking == "phrase" and self.params.mask_model != "hard"
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            local = self.super_patches.encode(self.encoder, before, after, assignment)
            if self.masking == "cam":
                return masking.saliency(local, image)
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

    # Inference ----------------------------------------------------------------------------------

    def encode_image(self, images: Tensor) -> Tensor:
        """Normalised [B, 3, H, W] -> f_I [B, D]: what the gallery holds."""
        return self.encoder.encode_image(images)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """[B, C] -> f_T [B, D]."""
        return self.encoder.encode_text(token_ids)

    def reference_features(self, images: Tensor, region: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """f_I [B, D], f_j [B, N_s, D] and the super-patch of every patch [B, N].

        region [B, H', W']: super-patches that it covers count as masked (`SuperPatches.cover`); None: nothing is masked.
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
        """A query's f_comp [B, D] from normalised reference images and modification texts [B, C]. Call in eval mode.

        region [B, H', W']: where it is painted on the references, they count as masked.
        """
        text = self.encode_text(text_ids)
        if not self.composition.dac and region is None:
            return self.composition(self.encode_image(images), None, text)
        image, local, _ = self.reference_features(images, region)
        return self.composition(image, local, text)

    # Images -----------------------------------------------------------------------------------

    @torch.no_grad()
    def alpha_map(self, images: Tensor, text_ids: Tensor, region: Tensor | None = None) -> Tensor:
        """1 - alpha_j over the patches, [B, h, w]: how much of the reference is kept where (figure 5)."""
        _, local, assignment = self.reference_features(images, region)
        kept = 1 - self.composition.weights(local, self.encode_text(text_ids))
        return self.super_patches.spread(kept, assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def mask_map(self, images: Tensor, phrase_ids: Tensor, phrase_offsets: Tensor) -> Tensor:
        """PSM's masking probability over the patches, [B, h, w] (figure 3), whatever masking this model trains with."""
        _, local, assignment = self.reference_features(images)
        padded, valid = masking.pad_phrases(self.encode_text(phrase_ids), phrase_offsets)
        logits = masking.mask_logits(masking.alignment(padded, valid, local), self.params.rho, self.params.tau_mask)
        return self.super_patches.spread(logits.sigmoid(), assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def similarities(
        self,
        images: Tensor,
        text_ids: Tensor,
        phrase_ids: Tensor | None = None,
        phrase_offsets: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """cos(f_I, f_T) and cos(f_Id, f_T), [B] each: the aligned and the masked histograms of figure 4."""
        texts, _, phrases = self._encode_texts(text_ids, None, phrase_ids if self.masking == "phrase" else None)
        views = self.views(images, phrases, phrase_offsets, generator)
        return (views.image * texts).sum(-1), (views.masked_image * texts).sum(-1)


def save_diffcomp(folder: str | Path, model: DiffComp, log: str = "", origin: Origin | None = None) -> None:
    """All weights of a trained variant and the parameters that it was trained with; log, origin: see `save_weights`."""
    save_weights(folder, model.state_dict(), {"diffcomp": as_dict(model.params)}, log, origin)


def load_diffcomp(folder: str | Path, encoder: DualEncoder) -> DiffComp:
    """A trained variant over an encoder of the same sizes, in eval mode. Raises ArtifactError where it does not fit."""
    known = {field.name for field in dataclasses.fields(DiffCompParams)}
    stored = read_json(Path(folder) / CONFIG)["diffcomp"]
    stored = {name: value for name, value in stored.items() if name in known}
    model = DiffComp(encoder, section_from_dict(DiffCompParams, stored, f"{folder}/{CONFIG}"))
    load_weights(folder, model)
    return model.eval()
