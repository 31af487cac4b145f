"""Sending a folder of shards to a dataset repository on the Hub.

Shards that are there already, with the same content, are not sent again. The manifest and the card come last, in one
commit, together with the removal of shards that no longer belong to the config.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evqa.corpora.cards import fill
from evqa.corpora.shards import MANIFEST

__all__ = ["push"]


def push(folder: Path, repo: str, card: Path, *, private: bool = False, say: Callable[[str], None] = print) -> None:
    """Send one config.

    Args:
        folder: From :func:`evqa.corpora.shards.write_shards`.
        repo: Dataset repository, ``USER/NAME``; made if it is not there.
        card: The README to put into it; configs that were sent before stay listed.
        private: Make a private repository.
        say: Told what happens.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    config = manifest["config"]
    shards = {
        f"{config}/{shard['file']}": shard for listed in manifest["splits"].values() for shard in listed["shards"]
    }
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    try:
        there = {info.path: info for info in api.get_paths_info(repo, sorted(shards), repo_type="dataset")}
    except RevisionNotFoundError:  # nothing was ever committed
        there = {}
    for path, shard in shards.items():
        file = folder / shard["file"]
        if path in there and _same_content(there[path], shard, file):
            say(f"{repo}: {path} is there already")
            continue
        api.upload_file(path_or_fileobj=file, path_in_repo=path, repo_id=repo, repo_type="dataset")
        say(f"{repo}: {path}, {shard['rows']} rows")
    old = {path for path in api.list_repo_files(repo, repo_type="dataset") if path.startswith(f"{config}/")}
    operations: list[Any] = [
        CommitOperationDelete(path_in_repo=path) for path in sorted(old - {*shards, f"{config}/{MANIFEST}"})
    ]
    content = _card(api, repo, card, config, manifest).encode("utf-8")
    operations.append(CommitOperationAdd(f"{config}/{MANIFEST}", folder / MANIFEST))
    operations.append(CommitOperationAdd("README.md", content))
    api.create_commit(repo, operations, commit_message=f"{manifest['corpus']}: {config}", repo_type="dataset")
    rows = ", ".join(f"{split} {listed['rows']}" for split, listed in manifest["splits"].items())
    say(f"{repo}: {config} is published, {rows} rows")


def _same_content(info: Any, shard: Mapping[str, Any], file: Path) -> bool:
    """Whether a file of the repository is this one, by the hash that the Hub keeps."""
    if getattr(info, "size", None) != shard["bytes"]:
        return False
    if getattr(info, "lfs", None):
        return info.lfs.sha256 == shard["sha256"]
    digest = hashlib.sha1(f"blob {shard['bytes']}\0".encode())  # git's own, for files that are not in LFS
    with open(file, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return info.blob_id == digest.hexdigest()


def _card(api: Any, repo: str, card: Path, config: str, manifest: Mapping[str, Any]) -> str:
    """The card, with the configs that are published so far and, in its place, the table of columns."""
    import yaml
    from huggingface_hub import DatasetCard

    ours = DatasetCard(fill(card.read_text("utf-8")), ignore_metadata_errors=True)
    data = ours.data.to_dict()
    configs = {}
    if api.file_exists(repo, "README.md", repo_type="dataset"):
        published = Path(api.hf_hub_download(repo, "README.md", repo_type="dataset")).read_text("utf-8")
        theirs = DatasetCard(published, ignore_metadata_errors=True).data.to_dict()
        configs = {one["config_name"]: one for one in theirs.get("configs") or []}
    files = [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in manifest["splits"]]
    configs[config] = {"config_name": config, "data_files": files}
    data["configs"] = list(configs.values())
    front = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n{ours.text}"
