"""Submissions that anybody may check, and the leaderboard made of them.

A submission is one zip file with a manifest and the predictions (:mod:`evqa.leaderboard.submission`). Checking it means
scoring it again from the references (:mod:`evqa.leaderboard.checking`); what comes out carries the hashes of what was
scored. :mod:`evqa.leaderboard.board` makes a page of such results, :mod:`evqa.leaderboard.app` a Gradio Space.
"""

from evqa.leaderboard.board import baseline_results, write_board
from evqa.leaderboard.checking import Verdict, check, read_result
from evqa.leaderboard.submission import pack

__all__ = ["Verdict", "baseline_results", "check", "pack", "read_result", "write_board"]
