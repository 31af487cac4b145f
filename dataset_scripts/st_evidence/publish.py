"""Publish ST-Evidence as typed Parquet, so that it loads without evqa.

    python dataset_scripts/st_evidence/publish.py --repo USER/st_evidence --config gen --data-dir FOLDER
    python dataset_scripts/st_evidence/publish.py --repo USER/st_evidence --config sample

Reads the published files with evqa's own builder (a row that cannot be read stops it), writes shards with checksums,
and pushes one config and the card beside this script. The same command goes on after an interruption. Afterwards
``datasets.load_dataset("USER/st_evidence", "gen")`` gives the same rows anywhere.

Clips, and images cut from them, go along for the sample benchmark, which is ours; for the others they are those of the
sets they come from, and --permission says that their owners agree.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("st_evidence", Path(__file__).with_name("README.md"), __doc__))
