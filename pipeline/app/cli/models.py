"""`cir models` and `cir check`: what is needed, what is missing, and how models come onto this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.errors import report_errors
from pipeline.config import ParameterError, Params, load_profile

Profile = Annotated[str, typer.Option(help="A profile of conf/profile/.")]
Conf = Annotated[Path, typer.Option(help="The folder with the profiles.")]
Overrides = Annotated[
    list[str],
    typer.Option("--set-param", "-S", metavar="NAME=VALUE", help="As `dvc exp run` has it: embedder=qwen2.5-vl-3b."),
]
NONE: list[str] = []

app = typer.Typer(invoke_without_command=True)


@app.callback()
@report_errors()
def models(
    context: typer.Context,
    profile: Profile = "offline",
    conf: Conf = Path("conf"),
    overrides: Overrides = NONE,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List a profile's checkpoints and data sets: revision, size, licence, place, and what is there."""
    context.obj = profile, conf, overrides
    if context.invoked_subcommand:
        return
    from rich.filesize import decimal

    from pipeline.app.inventory.needs import Need, needs

    found = needs(_params(profile, conf, overrides))
    if as_json:
        typer.echo(json.dumps([vars(need) | {"place": str(need.place)} for need in found], indent=2))
        return

    def line(need: Need) -> str:
        size = decimal(int(need.size)) if need.size else "size not known"
        facts = [need.revision and f"revision {need.revision}", size, need.licence or "licence not known"]
        state = "there" if need.there else "missing"
        facts += ["optional"] * need.optional
        return f"{state:8}{need.name} ({need.used_by}): {', '.join(filter(None, facts))}; {need.place}"

    for need in found:
        typer.echo(line(need))
    typer.echo(f"{sum(need.there for need in found)} of {len(found)} are there")


@app.command()
@report_errors()
def fetch(
    context: typer.Context,
    encoder: Annotated[
        str,
        typer.Argument(help="As for `cir index --encoder`: MODEL/WEIGHTS of open_clip, or a hub name."),
    ] = "",
    profile: Annotated[str, typer.Option(help="A profile, all of whose checkpoints are wanted.")] = "",
    describer: Annotated[
        str, typer.Option(help="As for `cir search --describer`: the hub name of a multimodal LLM.")
    ] = "",
    overrides: Overrides = NONE,
) -> None:
    """Download an encoder for `cir index --encoder`, a describer, or the checkpoints of a profile.

    An encoder is loaded once to see that it works. They go where the hub's libraries keep models (`HF_HOME`).
    This is the one command that asks a hub.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"  # before a library reads it
    if encoder:
        _fetch_encoder(encoder)
    if describer:
        _fetch_describer(describer)
    if encoder or describer:
        return
    from pipeline.app.inventory.fetch import fetch as fetch_needs
    from pipeline.app.inventory.needs import needs

    listed, conf, before = context.obj
    for need, folder in fetch_needs(needs(_params(profile or listed, conf, [*before, *overrides]))):
        typer.echo(f"{need.name}: {folder}")


def _fetch_encoder(name: str) -> None:
    from pipeline.app.search.own_encoder import parse_encoder
    from pipeline.encoders.dual.open import load_image_text_encoder

    own = parse_encoder(name)
    loaded = load_image_text_encoder(own.name, own.pretrained)
    count = sum(parameter.numel() for parameter in loaded.parameters())
    typer.echo(f"{own}: {count / 1e6:,.0f}M parameters, images of {loaded.image_size} px, vectors of {loaded.dim}")


def _fetch_describer(name: str) -> None:
    from pipeline.app.inventory.fetch import fetch_repository
    from pipeline.app.search.own_describer import check_describer

    check_describer(name)
    typer.echo(f"{name}: {fetch_repository(name)}")


@report_errors()
def check(
    profile: Profile = "offline",
    conf: Conf = Path("conf"),
    overrides: Overrides = NONE,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port of the page.")] = 7860,
) -> None:
    """Look for everything that a profile needs: checkpoints, data, packages, GPU memory, disk and ports.

    Nothing is loaded or computed. Each problem is one line, and the exit status is 1 if there is any.
    """
    from pipeline.app.inventory.checks import problems

    count = 0
    for problem in problems(_params(profile, conf, overrides), port):
        count += 1
        typer.echo(problem)
    typer.echo(f"profile {profile}: {count or 'no'} problem{'s' * (count != 1)}")
    if count:
        raise SystemExit(1)


def _params(profile: str, conf: Path, overrides: list[str]) -> Params:
    if not os.path.isdir(conf):
        raise ParameterError(f"{conf}: no such folder; run this in the project's folder, or name it with --conf")
    for override in overrides:
        if override.partition("=")[0].lstrip("+~") == "profile":
            raise ParameterError(f"-S {override}: a profile is chosen with --profile")
    return load_profile(profile, conf, overrides)
