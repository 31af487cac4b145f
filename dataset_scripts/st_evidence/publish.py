"""Publish ST-Evidence as typed Parquet, so that it loads without evqa.

    python dataset_scripts/st_evidence/publish.py --repo USER/st_evidence --config gen --data-dir FOLDER
    python dataset_scripts/st_evidence/publish.py --repo USER/st_evidence --config sample

Reads the published files with evqa's own builder (a row that cannot be read stops it), embeds clips and images, pushes
one config, and puts the card beside this script into the repository. Afterwards
``datasets.load_dataset("USER/st_evidence", "gen")`` gives the same rows anywhere.

You need the right to redistribute what you push: see DATA_LICENSES.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi

import evqa

CARD = Path(__file__).with_name("README.md")


def publish(repo: str, config: str, data_dir: str | None, *, private: bool, max_shard_size: str) -> None:
    """Push one config of ST-Evidence to a dataset repository; the card is written first, so that its data section,
    which ``push_to_hub`` maintains, stays up to date."""
    data = evqa.load_dataset("evqa/st_evidence", config, data_dir=data_dir)
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    if not api.file_exists(repo, "README.md", repo_type="dataset"):
        api.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id=repo, repo_type="dataset")
    data.push_to_hub(repo, config, max_shard_size=max_shard_size, private=private)
    for split, rows in data.items():
        print(f"{repo}: {config}/{split}, {len(rows)} rows")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True, help="dataset repository, USER/NAME")
    parser.add_argument("--config", required=True, help="gen, mcq, instruct_mask, instruct_qa or sample")
    parser.add_argument("--data-dir", help="folder of the published files; default: download them")
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--max-shard-size", default="500MB")
    arguments = parser.parse_args()
    publish(
        arguments.repo, arguments.config, arguments.data_dir,
        private=arguments.private, max_shard_size=arguments.max_shard_size,
    )  # fmt: skip


if __name__ == "__main__":
    main()
