"""Publish ViCaS as typed Parquet, so that it loads without evqa.

    python dataset_scripts/vicas/publish.py --repo USER/vicas --data-dir FOLDER

The terms allow research use of the annotations; frames (of Oops) go along only with --permission. The same command goes
on after an interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("vicas", Path(__file__).with_name("README.md"), __doc__))
