"""DiffComp: a dual encoder trained to compose an image with a text (algorithm 1; equations 1 to 20).

Its parts are CSS (`superpatches`), PSM (`masking`), DAC (`composition`) and three losses (`losses`). The equations are
known second-hand, from public notes on the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.config import DiffCompParams
from pipeline.diffcomp import masking
from pipeline.diffcomp.batch import Batch, Phrases
from pipeline.diffcomp.cam import class_activation
from pipeline.diffcomp.composition import Composition
from pipeline.diffcomp.losses import Negatives, difference_loss, info_nce, inverse_temperature, processes, ratio_loss
from pipeline.diffcomp.superpatches import SuperPatches
from pipeline.encoders.dual.interface import DualEncoder


@dataclass(frozen=True)
class Guides:
    """What masks look at: B captions and their phrases, encoded."""

    captions: Tensor
    """f_T [B, D]; read by CAM."""
    phrases: Tensor | None = None
    """f_i^K [B, P, D]; read by PSM."""
    valid: Tensor | None = None
    """Which of the phrases are real [B, P]."""


@dataclass(frozen=True)
class Views:
    """An image as it is and as it looks masked. B images, N_s super-patches, D joint width."""

    image: Tensor
    """f_I [B, D]."""
    masked_image: Tensor
    """f_Id [B, D]."""
    super_patches: Tensor | None
    """f_j of the masked image [B, N_s, D], where the composition reads them."""
    mask: Tensor
    """m_j [B, N_s]; one means masked."""
    retained: Tensor | None
    """1 - m_j [B, N_s]; None where masks are filled and so every super-patch shows something."""
    salient: Tensor | None
    """S_k*j [B, N_s], where phrases guide the masks."""


@dataclass(frozen=True)
class Reference:
    """What the composition reads of B references."""

    image: Tensor
    """f_I [B, D]; f_Id where a region is masked."""
    super_patches: Tensor
    """f_j [B, N_s, D]."""
    retained: Tensor | None
    """1 - m_j [B, N_s]; None without a region."""
    assignment: Tensor
    """The super-patch of every patch [B, N]."""


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

    seen: Tensor

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
        self.composition = Composition(params.dac, params.lambda_base, params.phi, params.lambda_query)
        learned = self.masking == "phrase" and params.mask_model != "hard"
        self.gamma = nn.Parameter(torch.tensor(params.gamma), requires_grad=learned)
        self.b = nn.Parameter(torch.tensor(0.0), requires_grad=learned)
        self.register_buffer("seen", torch.tensor(0))  # training images so far, over all processes
        encoder.freeze_all_but(params.image_layers, params.text_layers)
        encoder.gradient_checkpointing = params.gradient_checkpointing

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The training loss, its terms, and what they show.

            L = L_align + L_diff + L_ratio                                                       (17)

        L_align leads f_comp to the unmasked f_I of its image, with the relatives as further negatives where there are
        any. L_diff and L_ratio train the masks, and are zero where phrases do not guide them.

        Args:
            batch: Captioned images.
            generator: What masks are drawn with.

        Returns:
            Scalars: loss, align, diff, ratio, masked_share, cos_aligned, cos_masked, gamma, b.

        Raises:
            ValueError: Phrase masking got no phrases.
        """
        texts, composed, guides = self._encode_texts(batch)
        relatives = None if batch.relatives is None else batch.relatives.images
        views = self.views(batch.images, guides, generator, relatives)
        composition = self.composition(views.masked_image, views.super_patches, composed, views.retained)
        negatives = None
        if batch.relatives is not None:
            negatives = Negatives(self.encoder.encode_image(batch.relatives.images), batch.relatives.labels)
        scale, nothing = inverse_temperature(self.encoder.logit_scale), views.image.new_zeros(())
        terms = {
            "align": info_nce(composition, views.image, scale, batch.labels, negatives),
            "diff": nothing if views.salient is None else difference_loss(views.salient, views.mask),
            "ratio": nothing if views.salient is None else ratio_loss(views.mask, self.params.eta),
        }
        if self.training:
            self.seen += len(batch.images) * processes()
        with torch.no_grad():
            shown = {
                "masked_share": views.mask.mean(),
                "cos_aligned": (views.image * texts).sum(-1).mean(),
                "cos_masked": (views.masked_image * texts).sum(-1).mean(),
                "gamma": self.gamma.detach().clone(),
                "b": self.b.detach().clone(),
            }
        return {"loss": terms["align"] + terms["diff"] + terms["ratio"], **terms, **shown}

    def _encode_texts(self, batch: Batch) -> tuple[Tensor, Tensor, Guides]:
        """All of a batch's texts through the text tower at once, each distinct one only once.

        Returns:
            f_T of the captions and of what is composed with [B, D], and what guides the masks.
        """
        phrases = batch.phrases if self.masking == "phrase" else None
        wanted = (batch.text_ids, batch.composition_ids, None if phrases is None else phrases.ids)
        parts = [part for part in wanted if part is not None]
        distinct, index = torch.cat(parts).unique(dim=0, return_inverse=True)
        features = iter(self.encoder.encode_text(distinct)[index].split([len(part) for part in parts]))
        captions = next(features)
        composed = captions if batch.composition_ids is None else next(features)
        if phrases is None:
            return captions, composed, Guides(captions)
        return captions, composed, Guides(captions, *masking.pad_phrases(next(features), phrases.offsets))

    def views(
        self, images: Tensor, guides: Guides, generator: torch.Generator | None, relatives: Tensor | None = None
    ) -> Views:
        """Encode the images unmasked, draw masks, encode them masked.

        The unmasked pass shares its first L - k blocks between f_I and f_j. With k = L, f_j does not depend on the
        mask and is encoded once.

        Args:
            images: Normalised [B, 3, H, W].
            guides: What the masks look at.
            generator: What masks are drawn with.
            relatives: Normalised [B, 3, H, W], what fills the masks; None: they are hidden from the attention.

        Returns:
            The features of both passes, and the mask.

        Raises:
            ValueError: Phrase masking got no phrases.
        """
        css, encoder = self.super_patches, self.encoder
        patches = encoder.patchify(images)  # [B, N, W]
        tokens = encoder.assemble(patches)
        before, after = self._trunk(tokens)
        assignment = css.assign(before)
        local = css.encode(encoder, before, after, assignment) if self.masking == "phrase" else None
        mask, salient = self._mask(local, tokens, assignment, guides, generator)
        spread, bias = css.spread(mask, assignment), None
        if relatives is None:
            bias, retained = masking.attention_bias(spread), 1 - mask
        else:
            tokens, retained = encoder.assemble(masking.fill(patches, encoder.patchify(relatives), spread)), None
        masked_before, masked_after = self._trunk(tokens, bias)
        if not self.composition.local:
            local = None
        elif local is None or relatives is not None or css.cut:
            local = css.encode(encoder, masked_before, masked_after, assignment)
        return Views(encoder.project(after[:, 0]), encoder.project(masked_after[:, 0]), local, mask, retained, salient)

    def _trunk(self, tokens: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, 1 + N, W] -> the tokens at block L - k and at block L.

        Where the bias needs a gradient, the tokens get one that nobody reads: an attention kernel may keep what its
        backward pass needs only where queries, keys or values need one.
        """
        if bias is not None and bias.requires_grad and not tokens.requires_grad:
            tokens = tokens.detach().requires_grad_()
        before = self.encoder.run(tokens, 0, self.super_patches.cut, bias)
        return before, self.encoder.run(before, self.super_patches.cut, self.encoder.depth, bias)

    def _mask(
        self,
        local: Tensor | None,
        tokens: Tensor,
        assignment: Tensor,
        guides: Guides,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        """m_j [B, N_s], and S_k*j [B, N_s] where phrases guide."""
        params, css = self.params, self.super_patches
        if local is not None:
            scores, salient = self._scores(local, guides)
            temperature = masking.gumbel_temperature(self.progress, params.gumbel_start, params.gumbel_end)
            logits = self.gamma * scores + self.b
            return masking.draw_mask(logits, params.mask_model, params.eta, temperature, generator), salient
        if self.masking == "cam":
            activation = class_activation(self.encoder, tokens, guides.captions)
            return masking.highest(css.pool(activation, assignment), params.eta), None
        if self.masking == "crop":
            mask = masking.crop_mask(len(tokens), css.shape, params.eta, generator)
        else:
            mask = masking.random_mask(len(tokens), css.count, params.eta, generator)
        return mask.to(tokens.device), None

    def _scores(self, local: Tensor, guides: Guides) -> tuple[Tensor, Tensor]:
        """z_j and S_k*j, [B, N_s] each."""
        if guides.phrases is None or guides.valid is None:
            raise ValueError("phrase masking needs phrases and their offsets")
        similarity = masking.similarities(guides.phrases, local)
        omega = masking.saliency(similarity, guides.valid, self.params.saliency_temperature)
        return masking.guided_scores(omega, similarity), masking.salient_similarity(omega, similarity)

    @property
    def progress(self) -> float:
        """How much of the training is done, in [0, 1]."""
        return min(1.0, float(self.seen) / (self.params.steps * self.params.batch_size))

    @torch.no_grad()
    def start_threshold(self, images: Tensor, phrases: Phrases) -> None:
        """Set b so that a share eta of some images is masked: the notes do not say where b starts.

        Args:
            images: Normalised [B, 3, H, W].
            phrases: Theirs.
        """
        scores, _ = self._phrase_scores(images, phrases)
        self.b.fill_(masking.threshold(scores, float(self.gamma), self.params.eta))

    def _phrase_scores(self, images: Tensor, phrases: Phrases) -> tuple[Tensor, Tensor]:
        """z_j [B, N_s] of unmasked images, and the super-patch of every patch [B, N]."""
        reference = self.reference(images)
        padded, valid = masking.pad_phrases(self.encode_text(phrases.ids), phrases.offsets)
        scores, _ = self._scores(reference.super_patches, Guides(padded[:, 0], padded, valid))
        return scores, reference.assignment

    def encode_image(self, images: Tensor) -> Tensor:
        """f_I, which the gallery holds: normalised [B, 3, H, W] -> [B, D]."""
        return self.encoder.encode_image(images)

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """f_T: token ids [B, C] -> [B, D]."""
        return self.encoder.encode_text(token_ids)

    def reference(self, images: Tensor, region: Tensor | None = None) -> Reference:
        """What the composition reads of reference images.

        Args:
            images: Normalised [B, 3, H, W].
            region: [B, H', W']; super-patches that it covers are masked (`SuperPatches.cover`). None: nothing is.

        Returns:
            Their features.
        """
        tokens = self.encoder.embed_patches(images)
        before, after = self._trunk(tokens)
        assignment, retained = self.super_patches.assign(before), None
        if region is not None:
            mask = self.super_patches.cover(region.to(images.device), assignment)
            bias = masking.attention_bias(self.super_patches.spread(mask, assignment))
            before, after = self._trunk(tokens, bias)
            retained = 1 - mask
        local = self.super_patches.encode(self.encoder, before, after, assignment)
        return Reference(self.encoder.project(after[:, 0]), local, retained, assignment)

    def compose(self, images: Tensor, text_ids: Tensor, region: Tensor | None = None) -> Tensor:
        """f_comp of queries, without a mask. Call it in evaluation mode.

        Args:
            images: The references, normalised [B, 3, H, W].
            text_ids: The modifications [B, C].
            region: [B, H', W']; where it is painted on the references, they count as masked.

        Returns:
            [B, D], L2-normalised.
        """
        text = self.encode_text(text_ids)
        if not self.composition.local and region is None:
            return self.composition(self.encode_image(images), None, text)
        found = self.reference(images, region)
        return self.composition(found.image, found.super_patches, text, found.retained)

    @torch.no_grad()
    def kept_map(self, images: Tensor, text_ids: Tensor, region: Tensor | None = None) -> Tensor:
        """How much of the reference is kept where (figure 5).

        Args:
            images: The references, normalised [B, 3, H, W].
            text_ids: The modifications [B, C].
            region: As for `compose`; nothing is kept where it covers a super-patch.

        Returns:
            1 - lambda_j over the patches [B, h, w].
        """
        found = self.reference(images, region)
        kept = 1 - self.composition.weights(found.super_patches, self.encode_text(text_ids), found.retained)
        kept = kept if found.retained is None else kept * found.retained
        return self.super_patches.spread(kept, found.assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def mask_map(self, images: Tensor, phrases: Phrases) -> Tensor:
        """PSM's masking probabilities (figure 3), whatever masking this model trains with.

        Args:
            images: Normalised [B, 3, H, W].
            phrases: What guides the masks.

        Returns:
            p_j over the patches [B, h, w].
        """
        scores, assignment = self._phrase_scores(images, phrases)
        probabilities = (self.gamma * scores + self.b).sigmoid()
        return self.super_patches.spread(probabilities, assignment).unflatten(1, self.super_patches.grid)

    @torch.no_grad()
    def similarities(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """How near images are to their texts, as they are and masked: the histograms of figure 4.

        Args:
            batch: Images, their texts, and what guides the masks.
            generator: What masks are drawn with.

        Returns:
            cos(f_I, f_T) and cos(f_Id, f_T), [B] each.
        """
        texts, _, guides = self._encode_texts(batch)
        views = self.views(batch.images, guides, generator)
        return (views.image * texts).sum(-1), (views.masked_image * texts).sum(-1)
