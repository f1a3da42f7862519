"""`lensmith render`: HTML files to pictures and text boxes."""

from pathlib import Path
from typing import Annotated

import typer

from lensmith.cli.console.output import BAD_INPUT, input_path, output_path, show
from lensmith.cli.console.progress import counting, progress_bar


def render(
    files: Annotated[list[Path], typer.Argument(help="HTML files; - is stdin.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", callback=output_path, help="Folder for the results; - is stdout, for one page's picture."
        ),
    ],
    width: Annotated[int, typer.Option(min=1, help="Width of the window in px.")] = 1280,
    height: Annotated[int, typer.Option(min=1, help="Height of the window in px; a page may be higher.")] = 720,
    text: Annotated[bool, typer.Option("--text", help="Also write text blocks and element boxes as JSON.")] = False,
    scripts: Annotated[
        bool, typer.Option("--scripts", help="Run the page's scripts, and those beside it, still without network.")
    ] = False,
    assets_root: Annotated[
        Path | None,
        typer.Option(help="Folder that pages may read instead of their own, such as the one above pages/ and css/."),
    ] = None,
    no_assets: Annotated[
        bool, typer.Option("--no-assets", help="Let pages read no file: for files that you do not trust.")
    ] = False,
    expand: Annotated[bool, typer.Option("--expand", help="Show boxes that scroll at their full height.")] = False,
    max_height: Annotated[int, typer.Option(min=1, help="The highest page that is rendered, in px.")] = 32_768,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a page.")] = False,
) -> None:
    """Render HTML files to PNG.

    A page may read the files in its own folder, such as its stylesheets and pictures, and nothing outside. The browser
    is sandboxed and has no network; every page has limits on time, size and height. What a page holds and its picture
    does not show is listed below its name, and so is what it names and may not read.
    """
    from lensmith.core.errors import InputError
    from lensmith.render import Assets, Capture, RenderConfig, Scripts
    from lensmith.render.files import Existing, render_files

    if no_assets and assets_root is not None:
        raise InputError("--no-assets and --assets-root exclude each other", hint="leave one of them out")
    if assets_root is not None and not assets_root.is_dir():
        raise InputError(f"--assets-root {assets_root} is no folder", expected="a folder that holds the pages")
    run_scripts = Scripts.ON if scripts else Scripts.OFF
    config = RenderConfig(
        viewport_width_px=width,
        viewport_height_px=height,
        scripts=run_scripts,
        max_height_px=max_height,
        expand_scrolling=expand,
    )
    capture = Capture.PICTURE | Capture.TEXTS | Capture.ELEMENTS if text else Capture.PICTURE
    existing = Existing.OVERWRITE if overwrite else Existing.KEEP
    with progress_bar("pages") as on_progress:
        sources = [input_path(file) for file in files]
        results = render_files(
            sources,
            out,
            config,
            capture,
            counting(on_progress, len(files)),
            existing=existing,
            assets_of=lambda page: None if no_assets else Assets.beside(page, assets_root),
        )
    for result in results:
        show(result, as_json=as_json, out=out)
    if any(result.error for result in results):
        raise typer.Exit(BAD_INPUT)
