"""Publish GroundMoRe as typed Parquet, so that it loads without evqa.

    python dataset_scripts/groundmore/publish.py --repo USER/groundmore --data-dir FOLDER

Its authors state no licence: without --permission nothing is published. The same command goes on after an
interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("groundmore", Path(__file__).with_name("README.md"), __doc__))
