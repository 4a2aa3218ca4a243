"""How good the embeddings are (quality tasks), and the report that says so beside the privacy claim."""

from common.evaluation.score import Score

__all__ = ["Score"]
