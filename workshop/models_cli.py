"""``workshop models``: list, fetch and verify the models and data sets of ``models.toml``."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from workshop import models
from workshop.errors import WorkshopError

app = typer.Typer(no_args_is_help=True, help="List, fetch and check the model files.")

_Names = Annotated[
    list[str] | None, typer.Argument(help="Names from `workshop models list`.", show_default=False)
]


@app.command("list")
def list_models() -> None:
    """Every model: task, size, licence, whether it is here and whether this machine needs it."""
    try:
        catalogue = models.catalogue()
        needed = models.needed()
        table = Table(box=None, pad_edge=False)
        for title in ("name", "task", "languages", "licence", "size", "here", "needed"):
            table.add_column(title, no_wrap=True, justify="right" if title == "size" else "left")
        for model in catalogue.values():
            table.add_row(
                model.name,
                model.task,
                ", ".join(model.languages),
                model.licence,
                f"{model.size / 1e6:,.0f} MB",
                "yes" if models.is_present(model.name) else "no",
                "yes" if model.name in needed else "no",
            )
    except WorkshopError as error:
        _fail(error)
    Console().print(table)


@app.command()
def fetch(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Fetch models; without names, those that the system needs on this machine."""
    try:
        wanted = list(models.catalogue()) if everything else names or models.needed()
        folders = models.ensure_all(wanted)
    except WorkshopError as error:
        _fail(error)
    except KeyboardInterrupt:
        typer.echo("Stopped. The next fetch goes on from here.", err=True)
        raise typer.Exit(130) from None
    for folder in folders:
        typer.echo(str(folder))


@app.command()
def verify(names: _Names = None) -> None:
    """Hash the files again; without names, those of every model that is here."""
    try:
        wanted = names or [name for name in models.catalogue() if models.is_present(name)]
        problems = 0
        for name in wanted:
            found = models.verify(name)
            problems += len(found)
            for problem in found:
                typer.echo(f"{name}: {problem}", err=True)
            if not found:
                typer.echo(f"{name}: every file is right")
    except WorkshopError as error:
        _fail(error)
    if not wanted:
        typer.echo("No model is here yet; `workshop models fetch` brings them.")
    if problems:
        typer.echo("`workshop models fetch NAME` replaces a wrong file.", err=True)
        raise typer.Exit(1)


def _fail(error: WorkshopError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(1)
