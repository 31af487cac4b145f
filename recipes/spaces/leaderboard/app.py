"""The Space of a leaderboard. Variables of the Space choose the benchmark: EVQA_DATA (NAME:CONFIG) and EVQA_SPLIT."""

import os
from pathlib import Path

import evqa
from evqa.leaderboard.app import build

name, _, config = os.environ.get("EVQA_DATA", "evqa/st_evidence:sample").partition(":")
task = "mcq" if config == "mcq" else "gen"
rows = evqa.load_dataset(name, config or "gen", split=os.environ.get("EVQA_SPLIT", "test"))
rows = rows.remove_columns([column for column in ("video", "spatial_options") if column in rows.column_names])
app = build(rows, task, Path(__file__).parent / "results", title="ST-Evidence leaderboard")

if __name__ == "__main__":
    app.launch(max_file_size="1gb")
