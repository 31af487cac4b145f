"""Publish LV-VIS as typed Parquet, so that it loads without evqa.

    python dataset_scripts/lv_vis/publish.py --repo USER/lv_vis --data-dir FOLDER

The terms (CC BY-NC-SA 4.0) allow the annotations to be shared alike; frames go along only with --permission. The same
command goes on after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("lv_vis", Path(__file__).with_name("README.md"), __doc__))
