"""The release: one folder that holds tables, claim, evaluation, history and report, and can be checked by anybody.

    manifest.json     versions, scenario, statements, digest of every other file
    tables/<name>.safetensors + tables/<name>.keys.txt      (encoders: model.safetensors + config.json)
    certificate.json  the claim and the events it follows from
    evaluation.json   figures with intervals and baselines, neighbour lists
    rounds.json       public history, one entry a round
    report.html       one self-contained page
    README.md         model card

Digests show that nothing changed since the release was written; they do not show who wrote it.
"""

from common.release.checks import Check, VerificationReport
from common.release.contents import Release, ReleaseContents
from common.release.reading import load_release
from common.release.verification import verify
from common.release.writing import write_release

__all__ = ["Check", "Release", "ReleaseContents", "VerificationReport", "load_release", "verify", "write_release"]
