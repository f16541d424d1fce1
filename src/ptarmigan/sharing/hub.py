"""A generator folder as a new repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ptarmigan.core.types import UserError
from ptarmigan.generator.hub import PREFIX, hub_errors, hub_library


def upload(folder: Path, repo: str) -> str:
    """Upload the files of a generator folder in one commit; returns hf:user/name@commit, which names them.

    The repository is made, or is there and empty.  Raises UserError: package-missing, value-invalid, login-needed,
    repo-taken if it has files, repo-not-found, hub-failed.
    """
    hub = hub_library()
    with hub_errors(repo):
        if hub.get_token() is None:
            text = "the Hugging Face Hub needs to know who you are: log in by `hf auth login`, or set HF_TOKEN"
            raise UserError(text, "login-needed")
        api = hub.HfApi()
        repo = api.create_repo(repo, exist_ok=True).repo_id
        found = api.model_info(repo)
        if taken := {file.rfilename for file in found.siblings} - {".gitattributes"}:
            text = f"{repo} on the Hugging Face Hub has files already, such as {min(taken)}, and nothing is overwritten"
            raise UserError(f"{text}: choose another name", "repo-taken")
        files = [hub.CommitOperationAdd(path.name, path) for path in sorted(folder.iterdir())]
        commit = api.create_commit(repo, files, commit_message="Add the generator", parent_commit=found.sha)
    return f"{PREFIX}{repo}@{commit.oid}"
