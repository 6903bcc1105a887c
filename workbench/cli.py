"""The command ``workbench``: restore a photo, run a pipeline, list what there is.

Bad input ends with one line on standard error and exit code 2. Imports of torch and the like happen inside the
commands, so that ``--help`` answers at once.
"""

import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from workbench.commands import PRIOR, PRIOR_SET, SET, convert, exam, models, push, run, verify
from workbench.demo.command import demo
from workbench.own import told
from workbench.terminal import Bar, summary, writable
from workbench.text import parse_settings, printable

app = typer.Typer(
    name="workbench",
    help="Restore images with diffusion priors and equilibrium (fixed-point) methods.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# The noise that these begin with, unless they are told how much, leaves nothing to see of what it is added to.
HIDES = {
    name: f"{name} begins with noise that hides --initial: lower it by --set sigma_start=SIGMA, such as 0.1"
    for name in ("deqir", "ddnm", "ddnm+", "diffpir")
}


@app.command()
def restore(
    ctx: typer.Context,
    photos: Annotated[
        list[Path],
        typer.Argument(
            metavar="PHOTO",
            help="An image file; or several, or folders of them; or a recipe, run.json, which takes no options but "
            "--out, --bits, --device and --trust-code.",
            show_default=False,
        ),
    ],
    degrade: Annotated[
        str,
        typer.Option(
            help="How to degrade it: one of 'workbench operators', FILE.py:NAME or package.module:NAME of your own, or "
            "'none' if it is degraded already. Mask files are white where pixels are lost, black where they are kept; "
            "or layers, transparent where they are."
        ),
    ] = "sr:4",
    operator: Annotated[
        str | None, typer.Option(help="With --degrade none: the operator that degraded it.", show_default=False)
    ] = None,
    noise: Annotated[
        str,
        typer.Option(
            metavar="SIGMA",
            help="Standard deviation of the noise on the [0, 1] scale, poisson:PEAK, poisson-gauss:GAIN,SIGMA or "
            "FILE.py:NAME: added; with --degrade none, present, or auto: estimated from the photo.",
        ),
    ] = "0",
    solver: Annotated[
        str, typer.Option(help="How to restore ('workbench solvers' lists them), or FILE.py:NAME of your own.")
    ] = "deqir",
    prior: Annotated[
        str | None,
        typer.Option(help=f"{PRIOR} [default: photo, or of the kind that the solver needs]", show_default=False),
    ] = None,
    prior_set: Annotated[list[str] | None, PRIOR_SET] = None,
    seed: Annotated[int, typer.Option(help="Fixes degradation and restoration.")] = 0,
    samples: Annotated[
        int,
        typer.Option(min=1, max=64, help="Posterior samples of the one measurement, with solver seeds from --seed."),
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the results; existing ones are replaced.")] = Path("restored"),
    set_: Annotated[list[str] | None, SET] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Take the centre square and resize it to this many pixels.", show_default=False),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Denoise in overlapping tiles of this many pixels a side; 0: the whole photo at once, if the prior "
            "takes its size.  [default: in tiles where the prior does not take the photo's size, or it has more than "
            "512x512 pixels]",
            show_default=False,
        ),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Start from this image of the result's size, the output of another method, plus noise of standard "
            "deviation --set sigma_start=SIGMA; that of deqir, ddnm and diffpir by default hides it.",
            show_default=False,
        ),
    ] = None,
    bits: Annotated[int, typer.Option(help="Of each channel of the pictures written, 8 or 16.")] = 8,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, ...; several (cuda:0,cuda:1) share each batch.")
    ] = "cpu",
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Run the code that a recipe names.")] = False,
) -> None:
    """Degrade a photo and restore it, or restore a photo that is degraded already.

    Photos of any size: what the prior does not take whole is denoised in overlapping tiles.

    Writes original.png, degraded.png, restored.png (restored-2.png, ... of further samples) and metrics.json (scores,
    cost and all settings) into --out. The pictures are sRGB; transparency, EXIF and greyness of the photo are kept.

    Of several photos and of folders each is restored by itself, NAME.jpg to --out/NAME.png (NAME.jpg.png where another
    has that name), folders in folders; with summary.csv and thumbnails in contact.png. What cannot be read is skipped
    and named; the exit code is 1 unless all are restored. The same call goes on after an interruption.

    A recipe (run.json in the demo's download) is run with all its methods, each into a folder of its own in --out.
    """
    settings, prior_settings = parse_settings(set_ or []), parse_settings(prior_set or [], "--prior-set")
    writable(out)
    # Names are checked before the slow part, cheapest first.
    from workbench.images import check_bits
    from workbench.models.wrappers import existing_device
    from workbench.operators.parse import file_in
    from workbench.photo_file import read_photo
    from workbench.provenance import changes
    from workbench.recipe import folder_name, load_recipe, make_recipe, restore_recipe
    from workbench.records import replaces, save
    from workbench.restore import usual_prior

    check_bits(bits)
    photo, many = photos[0], len(photos) > 1 or photos[0].is_dir()
    several = photo.suffix.lower() == ".json" and not many
    if several:
        _only(ctx, "out", "bits", "device", "trust_code")
        recipe = load_recipe(photo, trust_code)
    else:
        method = {
            "name": solver,
            "solver": solver,
            "settings": settings,
            "prior": prior or usual_prior(solver),
            "prior_settings": prior_settings,
            "tile": tile,
        }
        known = {"operator": operator, "noise": _noise(noise), "seed": seed, "samples": samples}
        recipe = make_recipe(photo=printable(photo), degrade=degrade, methods=(method,), **known)
    known_devices = [existing_device(name) for name in device.split(",")]
    if many:
        if initial is not None:
            raise typer.BadParameter("--initial is for one photo")
        from workbench.data.listing import find_photos
        from workbench.folder import restore_photos

        said, all_restored = restore_photos(find_photos(photos, out, samples), recipe, out, known_devices, size, bits)
        typer.echo(said)
        raise typer.Exit(0 if all_restored else 1)
    path = recipe.photo if several else photo
    folders = [out / folder_name(*pair) if several else out for pair in enumerate(recipe.methods, start=1)]
    for read in (path, initial, file_in(recipe.operator or recipe.degrade)):
        if read is not None and any(replaces(read, folder) for folder in folders):
            raise ValueError(f"the results would replace {read}: choose another --out")
    file = read_photo(path, size)
    if file.remark:
        typer.echo(f"Note: {recipe.photo}: {file.remark}")
    given = (file.image, None if initial is None else read_photo(initial).image)
    results = restore_recipe(recipe, *given, known_devices, Bar)
    for index, (folder, result) in enumerate(zip(folders, results, strict=True)):
        folder.mkdir(parents=True, exist_ok=True)
        news = {"photo": recipe.photo, "remark": file.remark, "initial": None if initial is None else str(initial)}
        one = recipe.methods[index]
        hides = "" if initial is None or {"sigma_start", "schedule"} & set(one.settings) else HIDES.get(one.solver, "")
        remarks = (hides, result.records[0]["message"], changes(recipe, index, result.records[0]))
        result.records[0] |= news | {"message": "; ".join(filter(None, remarks))}
        save(result, folder, file, bits)
        typer.echo(summary(result.records, folder))


app.command()(run)
app.command()(verify)
app.command()(models)
app.command()(convert)
app.command()(push)
app.command()(exam)


@app.command()
def solvers() -> None:
    """List the methods that restore."""
    from workbench.solvers import describe_solvers, runs_with

    _list([(name, f"{'; '.join(filter(None, said))} ({runs_with(name)})") for name, *said in describe_solvers()])


@app.command()
def operators() -> None:
    """List the degradations and how they are written."""
    from workbench.operators.parse import describe_operators

    _list(describe_operators())


app.command()(demo)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point: run the command and turn bad input, or files that fail, into one line and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every encoding has a "−"
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for number, text in enumerate(given, start=1):
            if re.fullmatch(r"(--[\w-]+=)?", text):  # as a path it would be the current folder
                raise typer.BadParameter(f"argument {number} is empty: {text!r}")
        code = app(args=given or ["--help"], standalone_mode=False)
    except BrokenPipeError:  # `workbench operators | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except typer.TyperException as error:
        code = _fail(error.format_message())
    except Exception as error:
        # ValueError is how the whole package says that an argument is wrong. OSError: a full disk, a closed folder, ...
        code = _fail(re.sub(r"^.Errno [0-9]+. ", "", told(error, ValueError, OSError)))
    if code == 130:  # what typer itself makes of Ctrl-C
        print("workbench: interrupted", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> int:
    print(f"workbench: {' '.join(text.split())}", file=sys.stderr)
    return 2


def _noise(text: str) -> float | str:
    """``text`` as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def _only(ctx: typer.Context, *allowed: str) -> None:
    """Refuse options beside a recipe, which says the rest itself."""
    names = ", ".join(f"--{name.replace('_', '-')}" for name in allowed)
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "")
        if option.param_type_name == "option" and option.name not in allowed and given and given.name != "DEFAULT":
            raise typer.BadParameter(f"{option.opts[0]} cannot be given with a recipe, only {names}")


def _list(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        typer.echo(f"{name:<{width}}  {text}")
