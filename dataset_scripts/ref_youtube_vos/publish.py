"""Publish Ref-YouTube-VOS as typed Parquet, so that it loads without evqa.

    python dataset_scripts/ref_youtube_vos/publish.py --repo USER/ref_youtube_vos --data-dir FOLDER

The terms (annotations CC BY 4.0) allow the annotations to be passed on; frames go along only with --permission. The
same command goes on after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("ref_youtube_vos", Path(__file__).with_name("README.md"), __doc__))
