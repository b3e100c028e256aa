"""Models of others on the Hugging Face Hub: hf://OWNER/NAME, the file model.safetensors of that repository."""

import re
from pathlib import Path

from inpaint_jax.errors import UserError

PREFIX = "hf://"
FILE = "model.safetensors"

_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "hf_xet", "huggingface_hub")
_ADDRESS = re.compile(r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(address: str) -> Path:
    """Downloads a model, or takes the copy in the cache of huggingface_hub, which is also used without network.

    Args:
        address: "hf://OWNER/NAME", or "hf://OWNER/NAME@REVISION" for a branch, a tag or a commit.

    Returns:
        the local file.

    Raises:
        UserError: huggingface_hub is not installed, the address is malformed, or there is no such file to be had.
    """
    if (parts := _ADDRESS.fullmatch(address)) is None:
        raise UserError(f"{address} is no address of a model; give hf://OWNER/NAME or hf://OWNER/NAME@REVISION.")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise UserError(f"{address} needs huggingface_hub: pip install 'inpaint-jax[hub]'.") from error
    repository = f"{parts['owner']}/{parts['name']}"
    try:
        return Path(huggingface_hub.hf_hub_download(repository, FILE, revision=parts["revision"]))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{address} is not in the cache, and the hub cannot be reached; connect to the network, or give a file."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        # Of a repository without such a file, too; private ones look as if they did not exist.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise UserError(
            f"{address} has no {FILE} for you ({reason}); correct it, or log in by `hf auth login`."
        ) from error
    except Exception as error:
        # What its transports raise has no base in common.
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _TRANSPORTS:
            raise
        raise UserError(f"The download of {address} broke off ({error}); try again.") from error


def cached() -> dict[str, Path]:
    """What is there without network: address -> file, of whatever kind; none where huggingface_hub is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        return {}
    try:
        repositories = huggingface_hub.scan_cache_dir().repos
    except huggingface_hub.CacheNotFound:
        return {}
    return {
        f"{PREFIX}{repository.repo_id}@{revision.commit_hash[:7]}": file.file_path
        for repository in sorted(repositories, key=lambda found: found.repo_id)
        if repository.repo_type == "model"
        for revision in repository.revisions
        for file in revision.files
        if file.file_path == revision.snapshot_path / FILE
    }
