"""Push a Space to the Hub: a folder of ``recipes/spaces/`` or ``metrics/``.

python recipes/spaces/publish.py metrics/st_evidence_metrics --repo evqa/st_evidence_metrics
python recipes/spaces/publish.py recipes/spaces/leaderboard --repo you/leaderboard
"""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi


def main() -> None:
    """Check that the folder is a Space, and push it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME")
    parser.add_argument("--private", action="store_true")
    arguments = parser.parse_args()
    for name in ("app.py", "README.md", "requirements.txt"):
        if not (arguments.folder / name).is_file():
            parser.error(f"{arguments.folder} is no Space: it has no {name}")
    api = HfApi()
    api.create_repo(arguments.repo, repo_type="space", space_sdk="gradio", private=arguments.private, exist_ok=True)
    done = api.upload_folder(
        repo_id=arguments.repo,
        repo_type="space",
        folder_path=arguments.folder,
        ignore_patterns=["__pycache__/*", "*.pyc"],
    )
    print(done.commit_url)


if __name__ == "__main__":
    main()
