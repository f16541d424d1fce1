"""Generators on the Hugging Face Hub, which `hf:user/name` and `hf:user/name@revision` name in place of a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ptarmigan.core.types import UserError, printable

PREFIX = "hf:"
COMMIT = r"[0-9a-f]{40}"
WEIGHTS = "model.safetensors"


def is_on_hub(model: str | Path) -> bool:
    return str(model).startswith(PREFIX)


def pinned(model: str | Path, path: Path) -> Path:
    """The name of the commit that `model` stood for when `path` was downloaded."""
    return Path(f"{str(model).partition('@')[0]}@{path.parent.name}")


def hub_library() -> Any:
    """The package huggingface_hub; raises UserError (package-missing)."""
    try:
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        text = "models on the Hugging Face Hub need huggingface_hub: install it by pip install 'ptarmigan[hub]'"
        raise UserError(text, "package-missing") from None
    return huggingface_hub


def download(model: str | Path) -> Path:
    """The model.safetensors of a repository, in the Hub's own cache, with the scores.json beside it if there is one.

    A revision that is not a whole commit is looked up first, and the commit is said on standard error.  A commit that
    was downloaded before needs no network.  Only these two files are read, and neither is a pickle.  Raises UserError:
    value-invalid, package-missing, repo-not-found, no-generator, login-needed, hub-failed, file-unwritable.
    """
    from ptarmigan.core.console import Display, Terminal  # rich takes long to import, and few models are on the Hub

    repo, _, revision = str(model).removeprefix(PREFIX).partition("@")
    hub = hub_library()
    with Display(Terminal(stderr=True)) as display, display.doing(f"downloading {model}"), hub_errors(repo):
        if not re.fullmatch(COMMIT, revision):
            revision = hub.HfApi().model_info(repo, revision=revision or None).sha
            display.say(f"{model} is now {PREFIX}{repo}@{revision}")
        if isinstance(cached := hub.try_to_load_from_cache(repo, WEIGHTS, revision=revision), str):
            return Path(cached)
        with suppress(hub.errors.RemoteEntryNotFoundError):
            hub.hf_hub_download(repo, "scores.json", revision=revision)
        try:
            return Path(hub.hf_hub_download(repo, WEIGHTS, revision=revision))
        except hub.errors.RemoteEntryNotFoundError:
            text = f"{PREFIX}{repo} on the Hugging Face Hub has no {WEIGHTS}: it is no model of ptarmigan"
            raise UserError(text, "no-generator") from None


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """Hide the library's progress bars, and raise its errors as UserError, with the codes that `download` names."""
    hub = hub_library()
    bars = not hub.utils.are_progress_bars_disabled()
    hub.utils.disable_progress_bars()
    try:
        yield
    except (hub.errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise user_error(printable(repo), error) from None
    finally:
        if bars:
            hub.utils.enable_progress_bars()


def user_error(repo: str, error: BaseException) -> UserError:
    """The error of huggingface_hub, or of its network, in words."""
    errors, named = hub_library().errors, f"{repo} on the Hugging Face Hub"
    match error:
        case RuntimeError() if error.__cause__ is not None:  # of an upload
            return user_error(repo, error.__cause__)
        case errors.HFValidationError():
            return UserError(f"{repo!r} cannot be the name of a repository: write user/name", "value-invalid")
        case errors.RepositoryNotFoundError():
            text = f"{named} does not exist, or is private: check the name, or log in by `hf auth login`"
            return UserError(text, "repo-not-found")
        case errors.RevisionNotFoundError():
            return UserError(f"{named} has no such revision: name a branch, a tag or a commit", "repo-not-found")
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            text = f"{named}: the token is not valid or does not allow this ({error.response.status_code})"
            return UserError(f"{text}: log in by `hf auth login`, or name a repository of yours", "login-needed")
        case errors.HfHubHTTPError():
            reason = printable(error.server_message or error.response.reason_phrase)
            text = f"{named}: the server answered {error.response.status_code}, {reason}; try again later"
            return UserError(text, "hub-failed")
        case OSError(errno=int()):  # of the disk: those of the network have no number
            return UserError(f"cannot write {error.filename} for {named}: {error.strerror}", "file-unwritable")
    reason = printable(str(error).partition("\n")[0])
    return UserError(f"{named} cannot be reached: {reason}; check the network", "hub-failed")
