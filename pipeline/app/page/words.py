"""What methods and parameters mean, in plain words, for a visitor who has read neither paper."""

from __future__ import annotations

from pipeline.query.interface import Method

METHODS = {
    "fusion_diff": "A language model looks at the reference and your words and describes the wanted image. From that a "
    "diffusion model imagines what to look for. The most thorough method.",
    "stage1_only": "As Fusion-Diff, but what is imagined follows the description alone, not the reference.",
    "fused_description": "The language model's view of reference and words, half way to its description of the target. "
    "Nothing is imagined.",
    "description": "Only what the language model says that the target looks like.",
    "fused_only": "The language model's view of the reference and your words together. Nothing is described.",
    "cirevl": "The language model says what the target looks like, and CLIP searches for that sentence.",
    "image_only": "What looks like the reference. Your words are not used.",
    "text_only": "What fits your words. The reference is not used.",
    "image_text": "The reference and your words, added up.",
    "slerp": "A point on the way from the reference to your words. Needs no training.",
    "diffcomp": "Reference and words are joined, and the words count for more where the two disagree. As in the paper.",
    "diffcomp_row1": "An early form of DiffComp without its main ideas, to compare with.",
    "diffcomp_relative": "DiffComp, trained on what tells an image from those that resemble it.",
    "pic2word": "The reference becomes a word in a sentence with yours. Trained on images.",
    "searle": "The reference becomes a word in a sentence with yours. Trained on words fitted to images.",
    "lincir": "The reference becomes a word in a sentence with yours. Trained on captions.",
    "slerp_tat": "As slerp, with images that were moved towards their captions.",
    "pli": "Reference and words are added up by a CLIP that has learned to complete masked images.",
    "compodiff": "A diffusion model imagines the wanted image's CLIP vector from the reference and your words.",
    "flowcir": "The query's CLIP vector moves to the wanted image's in one learned step.",
    "ldre": "The language model describes the wanted image in several ways, and CLIP searches for their average.",
    "osrcir": "The language model looks at the reference and your words at once and says what the target looks like.",
}
"""By the method's name."""

CONTROLS = {
    "reference": "The image that you start from. Drop a file here, paste one, or pick one below.",
    "text": "Say in a few words how the wanted image differs from the reference. Enter searches.",
    "negative": "What must not be in the results. Leave it empty if nothing is in the way.",
    "method": "How reference and words become one search.",
    "second-method": "A second method, whose results stand beside the first one's.",
    "search": "Search with these settings. Enter does the same.",
    "back": "Return to the search before this one.",
    "guidance": "How strictly Fusion-Diff keeps to its description. 0: not more than it was trained to.",
    "control": "How strongly Fusion-Diff keeps to the reference. 0: not at all.",
    "hypotheses": "How many targets Fusion-Diff imagines. More of them cover more readings of your words. "
    "At temperature 0, as in the default run, all are the same.",
    "concept": "A word for what reference and wanted image have in common, such as heart. Fusion-Diff uses it.",
    "top": "How many results are shown.",
    "rerank": "How many of the first results a language model looks at, and puts into a new order. 0: none.",
    "region": "Paint what may change. DiffComp keeps the rest.",
}
"""By the component's id on the page."""


def of_method(method: Method) -> str:
    """A sentence or two about a method; its note where it is a variant of one's own."""
    return METHODS.get(method.name, method.note)
