"""One exception tree; every class carries its exit code and a one-line remedy.

FedembedError (1)
├── UsageError (2)            the command line itself is wrong
├── ConfigError (3)           a scenario, a setting or a combination of settings is refused
│   └── PrivacyConfigError (4)    the settings have no valid privacy claim
├── DataError (5)             input data cannot be read or used
│   ├── DataFormatError (5)       a file is not what its reader expects
│   └── DataLimitError (6)        a file, line or record exceeds a size limit
├── BudgetError (7)           the privacy budget or the client's policy refuses
│   └── TimeLimitError (7)        one message took longer than the policy allows
├── LedgerError (8)           the client's ledger is damaged or belongs to something else
├── ReleaseError (9)          a release folder is incomplete, altered or cannot be written
├── WireError (10)            a message is malformed
├── RoundError (11)           a round failed: too few clients, or nothing usable came back
├── CheckpointError (12)      a checkpoint is damaged or belongs to another run
├── StorageError (13)         the disk is full or not writable
├── DependencyError (14)      an optional dependency is missing
├── EvaluationError (15)      a benchmark cannot be scored
├── ConformanceError (16)     a privacy mechanism does not do what is claimed
├── SecAggError (17)          a secure-aggregation message or state is not valid
└── DeploymentError (18)      a coordinator or agent cannot be set up, started or reached
"""

from __future__ import annotations

from typing import ClassVar


class FedembedError(Exception):
    """Base of every error that fedembed raises on purpose.

    ``exit_code`` is what the command line returns; ``remedy`` is one line that tells the reader what to do.
    A message never holds a private value: it may end in a log or on another party's screen.
    """

    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "Run the command again with --help."

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = remedy if remedy is not None else self.remedy


class UsageError(FedembedError):
    exit_code = 2
    remedy = "Run the command with --help to see what it takes."


class ConfigError(FedembedError):
    exit_code = 3
    remedy = "Correct the scenario; `fedembed plan SCENARIO` checks it without running anything."


class PrivacyConfigError(ConfigError):
    exit_code = 4
    remedy = "Choose settings for which a guarantee exists; docs/privacy_officer.md lists them."


class DataError(FedembedError):
    exit_code = 5
    remedy = "Check the data path, the reader and its options in [data]."


class DataFormatError(DataError):
    exit_code = 5
    remedy = "Repair the file at the line named, or choose the reader that fits it."


class DataLimitError(DataError):
    exit_code = 6
    remedy = "Split the record, or raise the named limit in [data]."


class BudgetError(FedembedError):
    exit_code = 7
    remedy = "Lower the cost of the run, or have the data's owner raise the limit in the policy."


class TimeLimitError(BudgetError):
    exit_code = 7
    remedy = "Ask for less local work in a round, or have the site's owner raise max_seconds in the policy."


class LedgerError(FedembedError):
    exit_code = 8
    remedy = "Run `fedembed ledger verify`; restore the ledger from backup, never delete it."


class ReleaseError(FedembedError):
    exit_code = 9
    remedy = "Run `fedembed verify DIR`; make the release again if a file was altered."


class WireError(FedembedError):
    exit_code = 10
    remedy = "Check that both sides run the same fedembed version."


class RoundError(FedembedError):
    exit_code = 11
    remedy = "See the counted reasons above; rerun the same command to resume."


class CheckpointError(FedembedError):
    exit_code = 12
    remedy = "Choose another --out directory, or rerun the command that began this run."


class StorageError(FedembedError):
    exit_code = 13
    remedy = "Free disk space or choose another --out directory, then rerun: the run resumes."


class DependencyError(FedembedError):
    exit_code = 14
    remedy = "Install the extra that the message names."


class EvaluationError(FedembedError):
    exit_code = 15
    remedy = "Choose a benchmark that shares keys with the table."


class ConformanceError(FedembedError):
    exit_code = 16
    remedy = "Release nothing made with these settings; report the lines marked VIOLATION as a fault in fedembed."


class DeploymentError(FedembedError):
    exit_code = 18
    remedy = "`fedembed coordinator status` or `fedembed agent status` says what runs; the logs folder says why."


class SecAggError(FedembedError):
    """A refusal of the secure-aggregation protocol; ``code`` names the broken rule in one machine-readable word.

    A code alone may be sent to another party; the message tells the reader on this side more, and holds no secret.
    """

    exit_code = 17
    remedy = "Nothing was revealed. Compare both sides' version, settings and roster, then start the round again."

    def __init__(self, code: str, message: str | None = None, *, remedy: str | None = None) -> None:
        super().__init__(code.replace("_", " ") if message is None else message, remedy=remedy)
        self.code = code
