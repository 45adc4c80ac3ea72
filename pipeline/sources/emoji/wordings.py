"""Wordings of the edits: three sets with no sentence in common.

TRAINING is for triplets, VALIDATION and TEST for the queries of the two splits. The OPEN sets leave
one more attribute open (RELAXED), so that several images fit. Every wording speaks about the change
alone; what it does not name stays as in the reference.
"""

from __future__ import annotations

RELAXED = {"gender": "tone", "tone": "gender", "role": "gender", "hair": "gender", "direction": "tone"}

TRAINING = {
    "gender": (
        "change the person to {gender}",
        "make it {gender}",
        "turn this into {gender}",
        "replace the person with {gender}",
        "the same but with {gender}",
        "{gender} instead",
    ),
    "tone": (
        "change the skin tone to {tone}",
        "make the skin {tone}",
        "give it {tone} skin",
        "use a {tone} skin tone",
        "the same with {tone} skin",
        "recolour the skin to {tone}",
    ),
    "role": (
        "change to {role}",
        "turn the person into {role}",
        "make it {role}",
        "show {role} instead",
        "replace this with {role}",
        "now {role}",
    ),
    "hair": (
        "change the hair to {hair}",
        "give the person {hair}",
        "make it someone with {hair}",
        "add {hair}",
        "the same person with {hair}",
        "show {hair} instead",
    ),
    "colour": (
        "change the colour to {colour}",
        "make it {colour}",
        "turn it {colour}",
        "paint it {colour}",
        "the same in {colour}",
        "the {colour} one instead",
    ),
    "time": (
        "change the time to {time}",
        "set the clock to {digits}",
        "make it {time}",
        "turn the hands to {digits}",
        "the same clock at {time}",
        "show {digits} instead",
    ),
    "moon": (
        "change it to {moon}",
        "make it {moon}",
        "turn this into {moon}",
        "show {moon} instead",
        "the same sky with {moon}",
        "replace the phase with {moon}",
    ),
    "direction": (
        "turn it {direction}",
        "make it point {direction}",
        "change the direction {direction}",
        "rotate it {direction}",
        "the same but facing {direction}",
        "{direction} instead",
    ),
}

VALIDATION = {
    "gender": ("I want to see {gender} doing this", "swap in {gender}", "this time it should be {gender}"),
    "tone": ("let the skin be {tone}", "with skin of a {tone} shade", "switch to {tone} skin"),
    "role": ("have them be {role}", "let this person become {role}", "as if they were {role}"),
    "hair": ("let them have {hair}", "switch the hairstyle to {hair}", "picture them with {hair}"),
    "colour": ("let it be {colour}", "switch its colour to {colour}", "I want the {colour} version"),
    "time": ("let the clock read {time}", "move the hands so they say {digits}", "switch the hour to {time}"),
    "moon": ("let it be {moon}", "switch the phase so it is {moon}", "as {moon}"),
    "direction": ("let it face {direction}", "switch it so that it goes {direction}", "aim it {direction}"),
}

VALIDATION_OPEN = {
    "gender": ("this time {gender}, skin of any tone",),
    "tone": ("anyone like this whose skin is {tone}",),
    "role": ("have it be {role}, man or woman",),
    "hair": ("anyone like this with {hair}",),
    "direction": ("aim it {direction}, skin of any tone",),
}

TEST = {
    "gender": (
        "is {gender} rather than the one shown",
        "shows {gender} in the same situation",
        "should depict {gender}",
        "has {gender} as its subject",
        "looks alike except that we see {gender}",
    ),
    "tone": (
        "has a {tone} complexion",
        "the skin colour is {tone} here",
        "looks alike except for {tone} skin",
        "drawn with a {tone} tone of skin",
        "same figure, {tone} complexion",
    ),
    "role": (
        "is {role}",
        "depicts the same person as {role}",
        "looks alike except that it is {role}",
        "takes on the part of {role}",
        "would be {role} in this picture",
    ),
    "hair": (
        "has {hair} rather than what is shown",
        "wears {hair}",
        "looks alike except for {hair}",
        "is drawn with {hair}",
        "same individual, this time {hair}",
    ),
    "colour": (
        "is {colour} rather than the colour shown",
        "comes in {colour}",
        "looks alike except that it is {colour}",
        "same shape drawn in {colour}",
        "has {colour} as its colour",
    ),
    "time": (
        "shows {time} rather than the hour here",
        "reads {digits}",
        "tells us it is {time}",
        "looks alike except that the hands say {digits}",
        "is drawn at {time}",
    ),
    "moon": (
        "is {moon} rather than the phase shown",
        "depicts {moon}",
        "looks alike except that we see {moon}",
        "some nights away, when there is {moon}",
        "is drawn as {moon}",
    ),
    "direction": (
        "is directed {direction}",
        "heads {direction} rather than the way shown",
        "looks alike except that it goes {direction}",
        "is oriented {direction}",
        "same thing drawn {direction}",
    ),
}

TEST_OPEN = {
    "gender": ("is {gender}, whatever the skin tone", "shows {gender}, complexion does not matter"),
    "tone": ("has a {tone} complexion, whatever the gender", "{tone} skin, on a man, a woman or anyone"),
    "role": ("is {role}, whatever the gender", "depicts {role}, man, woman or anyone"),
    "hair": ("has {hair}, whatever the gender", "wears {hair}, man, woman or anyone"),
    "direction": ("is directed {direction}, whatever the skin tone", "heads {direction}, complexion does not matter"),
}

# GeneCIS: what the modification names is an attribute or an object, to be kept (focus) or changed.
FOCUS_ATTRIBUTE = {
    "gender": ("the same gender", "keeps the gender"),
    "tone": ("the same skin tone", "keeps the complexion"),
    "hair": ("the same hair", "keeps the hairstyle"),
    "colour": ("the same colour", "keeps the colour"),
}
FOCUS_OBJECT = {
    "role": ("the same job or activity", "someone else who does this"),
    "colour": ("the same shape", "this shape again, otherwise coloured"),
}
