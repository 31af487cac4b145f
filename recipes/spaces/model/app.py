"""The Space of a model. EVQA_MODEL chooses it, as ``evqa run --model`` takes it; by default a small one, untrained."""

import os

from evqa.adapters import load_adapter
from evqa.model_app import build

model = os.environ.get("EVQA_MODEL", "unipixel:tiny")
about = "Ask about a clip; the answer comes with the seconds and the pixels that prove it."
if model == "unipixel:tiny":
    about += " **This model has random weights**: it shows how the Space works and knows nothing."
app = build(load_adapter(model), title=f"evqa: {model}", about=about)

if __name__ == "__main__":
    app.launch(max_file_size="200mb")
