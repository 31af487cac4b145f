"""Region similarity J and boundary measure F of masks, frame by frame or clip by clip."""

import datasets
import evaluate

from evqa import evaluation
from evqa.errors import MaskError
from evqa.scoring import clip_jf

_DESCRIPTION = """J, F and J&F of video object segmentation (Perazzi et al., CVPR 2016), from COCO run-length masks
without decoding them. A clip's frames are averaged first, then the clips."""

_INPUTS = """
Args:
    predictions: list of clips, each a list of {"frame": int, "rle": {"size": [h, w], "counts": str or bytes}}.
    references: list of clips in the same form.
    protocol: "strict" (default) scores every frame of the reference, a missing mask being empty; "evqa-v1" scores
        every frame of the prediction.
Returns:
    J, F and J&F in percent, num_samples (clips) and num_frames.
Examples:
    >>> import evqa, evaluate
    >>> import numpy as np
    >>> from evqa import masks
    >>> box = np.zeros((48, 64), dtype=bool)
    >>> box[10:30, 10:40] = True
    >>> clip = [{"frame": 0, "rle": masks.encode(box)}]
    >>> metric = evaluate.load("evqa/mask_jf")
    >>> metric.compute(predictions=[clip], references=[clip])["J&F"]
    100.0
"""

_CITATION = """@inproceedings{perazzi2016, author = {Perazzi, Federico and others}, booktitle = {CVPR}, year = {2016},
  title = {A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation}}"""


class MaskJf(evaluation.SampleModule, evaluate.Metric):
    """See the description."""

    def _info(self):
        rle = {"size": datasets.List(datasets.Value("int32")), "counts": datasets.Value("binary")}
        clip = datasets.List({"frame": datasets.Value("int32"), "rle": rle})
        return evaluation.module_info(_DESCRIPTION, _CITATION, _INPUTS, clip, clip)

    def _compute(self, predictions, references, protocol="strict"):
        evaluation.check_protocol(protocol)
        clips = []
        for number, (said, right) in enumerate(zip(predictions, references, strict=True)):
            try:
                clips.append(clip_jf(said, right, protocol))
            except MaskError as error:
                raise MaskError(error.message, entry=f"clip {number}") from None
        scored = [clip for clip in clips if clip.j == clip.j]
        if not scored:
            raise MaskError("no clip has a frame to score")
        j = 100 * sum(clip.j for clip in scored) / len(scored)
        f = 100 * sum(clip.f for clip in scored) / len(scored)
        return {
            "J": j,
            "F": f,
            "J&F": (j + f) / 2,
            "num_samples": len(scored),
            "num_frames": sum(clip.frames for clip in scored),
            "protocol": protocol,
        }
