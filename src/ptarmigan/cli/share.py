"""Commands that hand a generator or its images on: as files, on the Hub, to a browser, over HTTP."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.boundary import say
from ptarmigan.cli.command import Model, Switch, Texts, WholeOrNone, command, loading


@command(
    "export runs/photos-1", "export runs/photos-1 --to onnx", "export runs/photos-1 --to hub me/photos --license mit"
)
def export(
    model: Model,
    repo: str | None = None,
    /,
    *,
    to: str = "html",
    out: Path | None = None,
    license: str | None = None,
    directions: Texts = None,
    at: WholeOrNone = None,
) -> None:
    """Write MODEL as a page for any browser, for other runtimes, or to the Hugging Face Hub.

    Parameters
    ----------
    repo
        user/name of the new repository, with --to hub
    to
        html: one page that draws images, also on a phone and without a network; onnx: a file for onnxruntime; torch: a
        folder with a program of torch.export and a short file of plain PyTorch; hub: upload the generator to REPO
    out
        X.html, X.onnx or a folder, and new; default: named after MODEL, in the current folder
    license
        what others may do with the generator, such as mit or cc-by-4.0; goes into its model card or metadata
    directions
        X.safetensors of `ptarmigan directions`: the page gets a slider for each; may be given several times
    at
        export the run's checkpoint after this many images; default: the last generator
    """
    with loading():
        from ptarmigan.commands.export import export

    say(str(export(model, repo, to=to, out=out, license=license, directions=directions, at=at)))


@command("explore", "explore runs/photos-1 runs/photos-2")
def explore(
    *runs: Path,
    port: WholeOrNone = None,
    host: str = "127.0.0.1",
    device: str = "auto",
    private: Switch = False,
) -> None:
    """Show RUNS in a browser, also while they train: verdicts, charts, grids, scores; draw with their generators.

    It prints an address of this machine with a token.  A request without the
    token is refused.  Ctrl-C ends it.

    Parameters
    ----------
    runs
        run folders, or folders of runs; default: runs
    port
        port to listen on; default: 8470, or the next one that is free
    host
        address to listen on; any but 127.0.0.1 may let other machines in
    device
        device that finds nearest images: auto, cpu, cuda or mps
    private
        also show training images, those nearest to a generated one; only on this machine
    """
    from ptarmigan.web.start import explore

    explore(*runs, port=port, host=host, device=device, private=private)


@command("serve runs/photos-1", "serve runs/photos-1 --port 8000")
def serve(
    model: Path,
    /,
    *,
    port: WholeOrNone = None,
    host: str = "127.0.0.1",
    at: WholeOrNone = None,
    device: str = "auto",
) -> None:
    """Serve images of MODEL to other programs over HTTP, as PNG or JSON, until Ctrl-C.

    It prints an address of this machine with a token.  A request without the
    token is refused.

    Parameters
    ----------
    model
        run folder, generator folder, model.safetensors or a checkpoint of a run
    port
        port to listen on; default: 8470, or the next one that is free
    host
        address to listen on; any but 127.0.0.1 may let other machines in
    at
        serve the run's checkpoint after this many images; default: the last generator
    device
        auto, cpu, cuda or mps
    """
    from ptarmigan.web.start import serve

    serve(model, port=port, host=host, at=at, device=device)
