"""Commands about losses."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.boundary import say
from ptarmigan.cli.command import command


@command("losses", "losses hinge")
def losses(
    *name: str,
    plot: Path | None = None,
    page: Path | None = None,
    lang: str | None = None,
) -> None:
    """Explain DCGAN's and ACGAN's losses, or NAME: a loss, a penalty, a recipe, or a problem such as mode collapse.

    Parameters
    ----------
    name
        a loss, penalty, recipe or problem, in one word or several; default: the losses of DCGAN and ACGAN
    plot
        X.svg: instead draw both players' losses and their slopes over the logit
    page
        X.html: instead copy the page that explains all losses in English and Chinese, with interactive figures
    lang
        en or zh; by default the language of LC_ALL, LC_MESSAGES or LANG
    """
    from ptarmigan.handbook.entries import explain

    say(*explain(" ".join(name) or None, plot=plot, page=page, lang=lang).split("\n"))


@losses.command
@command("losses identify my_loss.py")
def identify(*losses: str, kind: str | None = None, on: str | None = None) -> int:
    """Identify the loss that your code computes and report mistakes in it; exit status 1 if there are any.

    Only the imports, constants and definitions that the losses need are run.
    They run with your rights, in a child process that gets 60 s and 4 GiB.
    Training code is not run.  Do not name a file that you would not run yourself.

    Whether G is detached is checked only if a function takes D, G and latents,
    not if it takes D's outputs.

    Parameters
    ----------
    losses
        FILE.py or FILE.ipynb for all its losses, those inside a training loop too, FILE.py:FUNCTION,
        'FILE.py:CLASS("argument")', or - for standard input; parameters are recognised by their names: real and fake
        (D's outputs), output and target, class_logits and labels, or D, G, images and z
    kind
        role of the function, if its names do not show it: d or g (takes real, fake), bce (takes output, target) or
        class (takes class logits, labels)
    on
        logits or probabilities, if the function does not show which it takes
    """
    from ptarmigan.handbook.identify import identify

    answers = identify(*losses, kind=kind, on=on)
    say(*repr(answers).split("\n"))
    return 0 if all(answer.right for answer in answers) else 1
