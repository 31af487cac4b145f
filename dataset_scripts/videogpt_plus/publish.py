"""Publish VideoGPT+ as typed Parquet, so that it loads without evqa.

    python dataset_scripts/videogpt_plus/publish.py --repo USER/videogpt_plus --data-dir FOLDER

The terms (annotations CC BY 4.0) allow annotations to be passed on; videos go along only with --permission. The same
command goes on after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("videogpt_plus", Path(__file__).with_name("README.md"), __doc__))
