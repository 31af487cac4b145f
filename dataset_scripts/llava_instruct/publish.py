"""Publish LLaVA-Instruct-665k as typed Parquet, so that it loads without evqa.

    python dataset_scripts/llava_instruct/publish.py --repo USER/llava_instruct --data-dir FOLDER

Its parts have licences of their own: without --permission nothing is published. The same command goes on after an
interruption.
"""

import sys
from pathlib import Path

from evqa.corpora.publishing import main

if __name__ == "__main__":
    sys.exit(main("llava_instruct", Path(__file__).with_name("README.md"), __doc__))
