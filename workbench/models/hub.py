"""Priors on the Hugging Face Hub: a repository holds ``model.safetensors`` (``checkpoint.py``) and its card.

huggingface_hub does the work: download, cache, login. What it cannot do is said in one line: which file is missing, and
where to put it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.models.checkpoint import read_header

WEIGHTS, CARD = "model.safetensors", "README.md"
LOGIN = "log in with `hf auth login`"
NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./ -]+))?(?:@(?P<revision>[\w./-]+))?")


def parse(source: str) -> tuple[str, str | None, str | None]:
    """USER/NAME, file and revision of ``USER/NAME[/FILE][@REVISION]``. Raises ValueError for anything else."""
    match = NAME.fullmatch(source)
    if match is None:
        raise ValueError(f"expected USER/NAME, USER/NAME/FILE or USER/NAME@REVISION on the Hub, got {source!r}")
    return match["repository"], match["file"], match["revision"]


def fetch(source: str) -> Path:
    """The local copy of ``USER/NAME[/FILE][@REVISION]``, downloaded unless it is cached; FILE is model.safetensors.

    Raises:
        ValueError: a malformed name, no such repository, file or revision, or no connection and nothing cached.
    """
    from huggingface_hub import hf_hub_download

    repository, file, revision = parse(source)
    wanted = file or WEIGHTS
    with hub_errors(repository, wanted):
        files = repository_files(repository, revision)
        if files is not None and wanted not in files:
            raise ValueError(_other_files(source, repository, wanted, files))
        return Path(hf_hub_download(repository, wanted, revision=revision, local_files_only=files is None))


def repository_files(repository: str, revision: str | None) -> list[str] | None:
    """The names of a repository's files, or None without a connection or while the Hub is out of order.

    Asked first: downloads try again for half a minute before they believe that there is no connection.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=10)
    except Exception as error:
        if _unreachable(error):
            return None
        raise
    return [entry.rfilename for entry in info.siblings or []]


def _unreachable(error: BaseException) -> bool:
    # huggingface_hub has changed its HTTP library twice; all of them have errors of these names.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "HfHubHTTPError" in kinds:
        return getattr(getattr(error, "response", None), "status_code", 0) >= 500
    return bool(kinds & {"TransportError", "ConnectionError", "Timeout"})


def _other_files(source: str, repository: str, wanted: str, files: list[str]) -> str:
    if any(Path(name).name.startswith(("model_index.json", "diffusion_pytorch_model.")) for name in files):
        return f"{repository} is not a repository of this package: for diffusers, diffusers:{source}"
    weights = [name for name in files if name.endswith((".safetensors", ".pth", ".pt", ".ckpt"))]
    hint = f"; it has {', '.join(weights[:5])}: name one, as hf:{repository}/{weights[0]}" if weights else ""
    return f"{repository} has no file {wanted}{hint}"


@contextmanager
def hub_errors(repository: str, missing: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into a ValueError of one line that says what to do.

    Args:
        missing: what was to be downloaded; None for an upload.
    """
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    try:
        yield
    except hub.GatedRepoError:
        raise ValueError(f"{repository} is gated: accept its terms on the Hub, then {LOGIN}") from None
    except hub.RepositoryNotFoundError:
        raise ValueError(f"no repository {repository} on the Hub, or it is private and you must {LOGIN}") from None
    except (hub.HFValidationError, hub.HfHubHTTPError) as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        advice = f": {LOGIN}, with a token that may write" if code in (401, 403) else ""
        reason = ", ".join(line for line in str(error).splitlines() if line)
        raise ValueError(f"the Hub refused {repository} ({reason}){advice}") from None
    except Exception as error:
        if not isinstance(error, hub.LocalEntryNotFoundError) and not _unreachable(error):
            raise
        if missing is None:
            raise ValueError(f"{repository} cannot be published: the Hub cannot be reached") from None
        raise ValueError(
            f"{missing} of {repository} is not on this machine and the Hub cannot be reached: download it elsewhere "
            f"and give the path of the file or folder, or copy the cache to {constants.HF_HUB_CACHE}"
        ) from None


def push(file: str | Path, repository: str, *, private: bool = False, message: str | None = None) -> str:
    """Publish a checkpoint of this package and its card as ``repository`` (USER/NAME); returns the address.

    Raises:
        ValueError: not a file of this package, a malformed name, not logged in, or no connection.
    """
    try:
        header = read_header(file)
    except ValueError as error:
        raise ValueError(f"{error}; `workbench convert {file} --to {WEIGHTS}` makes one") from None
    name, path, revision = parse(repository)
    if path or revision:
        raise ValueError(f"expected USER/NAME to publish to, got {repository!r}")
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi()
    with hub_errors(name):
        try:
            api.whoami()
        except LocalTokenNotFoundError:
            raise ValueError(f"not logged in to the Hub: {LOGIN}, with a token that may write") from None
        api.create_repo(name, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(WEIGHTS, str(file)),
            CommitOperationAdd(CARD, model_card(header, name).encode()),
        ]
        api.create_commit(name, operations, commit_message=message or "Publish prior")
    return f"https://huggingface.co/{name}"


def model_card(header: dict[str, Any], repository: str) -> str:
    """The card of a checkpoint, from its header, as Markdown with the Hub's front matter."""
    card = dict(header["card"])
    facts = {key: value for key, value in card.items() if key != "summary" and not isinstance(value, dict | list)}
    nested = {key: value for key, value in card.items() if isinstance(value, dict | list)}
    title, summary = repository.rpartition("/")[2], card.get("summary", "A prior for image restoration.")
    lines = [
        *("---", "library_name: restoration-workbench", "tags:", "- image-restoration", "- diffusion-prior", "---", ""),
        *(f"# {title}", "", summary, ""),
        *("```python", "from workbench.models import load_prior", f'prior = load_prior("hf:{repository}")', "```", ""),
        *("| fact | value |", "| --- | --- |"),
        f"| network | {header['network']}, {_plain(header['network_config'])} |",
        f"| adapter | {header['adapter']} |",
        *(f"| {key} | {_plain(value)} |" for key, value in facts.items()),
        *("", "```json", json.dumps(nested, indent=1), "```", ""),
    ]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    text = ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
