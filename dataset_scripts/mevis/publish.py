"""Publish MeViS as typed Parquet, so that it loads without evqa.

    python dataset_scripts/mevis/publish.py --repo USER/mevis --data-dir FOLDER

The terms (CC BY-NC-SA 4.0) allow the annotations to be shared alike; frames go along only with --permission. The same
command goes on after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("mevis", Path(__file__).with_name("README.md"), __doc__))
