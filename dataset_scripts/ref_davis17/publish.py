"""Publish Ref-DAVIS17 as typed Parquet, so that it loads without evqa.

    python dataset_scripts/ref_davis17/publish.py --repo USER/ref_davis17 --data-dir FOLDER

The authors of the expressions state no licence: without --permission nothing is published. The same command goes on
after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("ref_davis17", Path(__file__).with_name("README.md"), __doc__))
