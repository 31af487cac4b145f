"""The Space of this metric: paste predictions and references, get the numbers."""

from evqa.evaluation_app import build

app = build("temporal_grounding")

if __name__ == "__main__":
    app.launch()
