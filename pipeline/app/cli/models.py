"""`cir models`: which models are needed, and how they come onto this machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipeline.app.errors import report_errors

app = typer.Typer(no_args_is_help=True, help="Fetch the models that searches use.")


@app.callback()
def models() -> None:
    """Fetch the models that searches use."""


@app.command()
@report_errors()
def fetch(
    encoder: Annotated[
        str,
        typer.Argument(help="As for `cir index --encoder`: MODEL/WEIGHTS of open_clip, or a hub name."),
    ],
) -> None:
    """Download an image-text encoder for `cir index --encoder`, and load it once to see that it works.

    It goes where the hub's libraries keep models (`HF_HOME`). This is the one command that asks a hub.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"  # before a library reads it
    from pipeline.app.search.own_encoder import parse_encoder
    from pipeline.encoders.dual.open import load_image_text_encoder

    own = parse_encoder(encoder)
    loaded = load_image_text_encoder(own.name, own.pretrained)
    count = sum(parameter.numel() for parameter in loaded.parameters())
    typer.echo(f"{own}: {count / 1e6:,.0f}M parameters, images of {loaded.image_size} px, vectors of {loaded.dim}")
