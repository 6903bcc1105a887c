"""The command ``workbench demo``. Imports of Gradio and torch happen inside, so that ``--help`` answers at once."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0: on all networks of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 7860,
    root_path: Annotated[
        str,
        typer.Option(help="Path under which a reverse proxy shows the page, such as /demo.", show_default=False),
    ] = "",
    prior: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PRIOR",
            help="Offer this prior too: anything that 'workbench restore --prior' takes. May be repeated.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Longest time of one comparison.")] = 120,
    waiting: Annotated[int, typer.Option(min=1, help="Most visitors in the queue.")] = 40,
    upload: Annotated[float, typer.Option(min=0.1, help="Largest upload in megabytes.")] = 20,
    pixels: Annotated[int, typer.Option(min=64, help="Most pixels of a restored picture.")] = 512 * 512,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Most samples of each method.")] = 8,
    keep: Annotated[float, typer.Option(min=0.05, help="Minutes until what a visitor no longer uses is removed.")] = 15,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser.")] = False,
) -> None:
    """Serve a page that compares methods side by side on photos that visitors bring.

    Nothing is fetched from elsewhere. What visitors upload is removed when they close the page, when the server ends,
    and after --keep minutes.
    """
    from workbench.demo.problem import Limits
    from workbench.demo.server import serve

    limits = Limits(
        upload_megabytes=upload, pixels=pixels, seconds=seconds, samples=samples, waiting=waiting, keep_minutes=keep
    )
    serve(host=host, port=port, root_path=root_path, priors=_named(prior or []), limits=limits, inbrowser=browser)


def _named(texts: list[str]) -> dict[str, str]:
    """Name on the page -> source, from NAME=SOURCE or SOURCE, whose last part is its name then."""
    priors = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals:
            name, source = Path(text).stem, text
        if not name or not source or name in priors:
            raise typer.BadParameter(f"--prior expects NAME=PRIOR or PRIOR, each name once, got {text!r}")
        priors[name] = source
    return priors
