"""One node's part in one run: admits the run under the policy, keeps the table version, computes rounds."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from client.admission import Admission, Announced, RefusedError, events_of, refuse
from client.answers import Asked, asked_of, faults, node_reply
from client.device import ANY_DEVICE, Device
from client.gate import account_question, check_account, check_coordinator, check_hours, check_lately, check_run
from client.kept_run import KeptRun, payload_of, portable_config
from client.ledger import Ledger, Reservation
from client.module_training import sample_loss
from client.policy import Policy, Refusal, check_message
from client.secure import SecretStates, held_states
from client.secure_terms import Party
from client.store import DataSource
from client.training import Randomness, client_updates, local_training
from client.upload import check_upload
from common import wire
from common.config import Scenario, scenario_from_json
from common.errors import WireError
from common.privacy.rng import NoiseSource
from common.seeds import public_rng, public_seed
from common.table import FloatArray, IntArray, RowDomain
from common.update import UpdateBatch
from common.work import Work, work_for


@dataclass
class Session:
    """State of a node between messages. Losing it costs a full table on the next round, never privacy.

    Attributes:
        source: the node's data.
        ledger: the node's own record of privacy spent.
        policy: the node's own limits.
        keeps_table: whether the process outlives a message, so that later rounds may send changed rows only.
        simulated: whether this node plays the faults that the scenario asks for.
        state_dir: where an admitted run is kept for the process that serves the next message; ``None`` where one
            process serves them all.
        work_of: what a run's scenario and rows amount to; an audit plants its canaries here.
        party: who this node's one client is under secure aggregation with a roster; ``None``: a name for each round.
        admitted: the run that ``train`` serves; set only when its reservation is in the ledger.
        bundle: hash of the code that runs here, for the ledger; empty in a simulation.
        accounts: the ledger's names for this node's data, as far as they are known before any are read.
        device: what the site trains on, whatever a run asks.
        now: the site's own time.
    """

    source: DataSource
    ledger: Ledger
    policy: Policy
    keeps_table: bool = False
    simulated: bool = False
    state_dir: Path | None = None
    work_of: Callable[[Scenario, RowDomain | None], Work] = work_for
    party: Party | None = None
    admitted: Admission | None = None
    parameters: dict[str, FloatArray] | None = None
    version: int = -1
    secrets: SecretStates | None = None
    bundle: str = ""
    accounts: tuple[str, ...] = ()
    device: Device = ANY_DEVICE
    now: Callable[[], datetime.datetime] = datetime.datetime.now

    def prepare(self, payload: wire.Payload) -> wire.Payload:
        """Admit a run or refuse it: a refusal is a normal reply that names code and numbers.

        Raises:
            WireError: malformed payload.
            ConfigError, DataError: the scenario or this node's data cannot be used.
        """
        run, config = payload.text("run"), portable_config(payload)
        try:
            refuse(check_hours(self.policy, self.now()))
            admission = self._admission(payload)
            self._reserve(admission)
        except RefusedError as error:
            return node_reply(run, status="refused", clients=0, code=error.refusal.code, reason=error.refusal.message)
        self._adopt(admission)
        if (kept := self._kept(run)) is not None:
            kept.save(payload, config)
            kept.note_yes("terms", self._terms(*kept.contents()))
        name = "" if self.party is None else self.party.name
        return node_reply(run, status="ready", clients=len(admission.clients), name=name)

    def _admission(self, payload: wire.Payload, *, allowed: bool = False) -> Admission:
        """The run that a payload describes, if the policy allows its terms; ``allowed``: it did, and is the same."""
        refuse(check_message(self.policy, payload.size_bytes))
        domain = wire.decode_domain(payload)
        signer, refusal = check_coordinator(self.policy, payload, domain, running=self.bundle)
        refuse(refusal)
        work = self.work_of(scenario_from_json(payload.text("scenario")), domain)
        if not allowed:
            refuse(check_run(self.policy, work, payload.size_bytes))
        announced = Announced(payload.text("run"), work, signer or payload.text("coordinator"), self.bundle)
        if work.plan.secure is not None and work.plan.secure.roster and self.party is None:
            refuse(Refusal("roster", "the run counts on a roster, and this site is in none"))
        self._refuse_overspent(announced)
        store = self.source.store(work.scenario, work.domain)
        return announced.admitted(store, self.source.fingerprints(store))

    def _refuse_overspent(self, announced: Announced) -> None:
        """Before the data are read: a run for which there is no room. ``_reserve`` asks again, and decides."""
        for name in self.accounts if self.policy.limits_spend else ():
            if not self.ledger.has_reserved(announced.account, name):
                whole = events_of(announced.reservations())
                refuse(check_account(self.policy, self.ledger, announced.work.plan, name, whole))

    def _adopt(self, admission: Admission) -> None:
        self.admitted, self.parameters, self.version = admission, None, -1

    def _kept(self, run: str) -> KeptRun | None:
        return None if self.state_dir is None else KeptRun(self.state_dir, run)

    def _terms(self, config: bytes, arrays: bytes) -> tuple[bytes, ...]:
        """Everything that ``check_run`` looks at."""
        return repr(self.policy).encode(), self.bundle.encode(), config, arrays

    def _recall(self, run: str) -> bool:
        """Take up a run that an earlier process of this node admitted, if the policy still allows it."""
        kept = self._kept(run)
        if kept is None or not kept.exists:
            return False
        config, arrays = kept.contents()
        # without the hash of a bundle, the code may be newer
        same = bool(self.bundle) and kept.said_yes("terms", self._terms(config, arrays))
        self._adopt(self._admission(payload_of(config, arrays), allowed=same))
        return True

    def _reserve(self, admission: Admission) -> None:
        """Reserve the whole planned run in the ledger, durable before anything is computed.

        The whole run is charged up front, so its rounds may be accounted as the plan does, with the secrecy of the
        cohort where the plan counts on it. What was spent before is looked at inside the same transaction.
        """
        plan, parts = admission.work.plan, admission.reservations()
        whole = events_of(parts)

        def admit(item: Reservation) -> None:
            refuse(check_account(self.policy, self.ledger, plan, item.fingerprint, whole))

        wanted = [replace(part, fingerprint=f) for f in dict.fromkeys(admission.fingerprints) for part in parts]
        self.ledger.reserve(wanted, admit=admit if self.policy.limits_spend else None)

    def train(self, payload: wire.Payload) -> wire.Payload:
        """Compute one round for the clients that the payload names.

        Raises:
            WireError: malformed payload, another run, or rows for a version that this node does not hold.
        """
        return self.served(payload, self._answer)

    def served(self, payload: wire.Payload, answer: Callable[[Admission, wire.Payload], wire.Payload]) -> wire.Payload:
        """``answer`` for a message of an admitted run; a refusal for one that the policy does not allow."""
        run = payload.text("run")
        try:
            refuse(check_hours(self.policy, self.now()))
            if (self.admitted is None or run != self.admitted.run) and not self._recall(run):
                return node_reply(run, status="unprepared")
            refuse(check_message(self.policy, payload.size_bytes))
            reply = answer(self._admitted(), payload)
            refuse(check_message(self.policy, reply.size_bytes))
            return reply
        except RefusedError as error:
            return node_reply(run, status="refused", code=error.refusal.code, reason=error.refusal.message)

    def _answer(self, admitted: Admission, payload: wire.Payload) -> wire.Payload:
        if admitted.work.plan.mode == "distributed":
            raise WireError("a run in mode 'distributed' sends nothing but masked vectors")
        asked = asked_of(admitted, payload)
        parameters = self.tables(admitted, payload)
        if parameters is None:
            return node_reply(admitted.run, status="need_full", round=asked.round)
        return self._computed(parameters, asked)

    def tables(self, admitted: Admission, payload: wire.Payload) -> dict[str, FloatArray] | None:
        """The parameters of a message; ``None`` where it has rows for a version that this node does not hold."""
        base_version = payload.integer("base_version")
        if base_version >= 0 and base_version != self.version:
            return None
        base = self.parameters if base_version >= 0 else None
        parameters = wire.decode_parameters(payload, admitted.work.specs, base)
        if self.keeps_table:
            self.parameters, self.version = parameters, payload.integer("version")
        return parameters

    @contextmanager
    def secret_states(self, run: str) -> Iterator[SecretStates]:
        """What this node's clients keep between the hops of secure aggregation in ``run``, for one message."""
        if self.state_dir is not None:
            with held_states(self.state_dir, run) as states:
                yield states
            return
        if self.secrets is None or self.secrets.run != run:
            self.secrets = SecretStates(run)
        yield self.secrets

    def _computed(self, parameters: dict[str, FloatArray], asked: Asked) -> wire.Payload:
        admitted = self._admitted()
        work, store, chosen = admitted.work, admitted.clients, asked.clients
        refuse(check_upload(self.policy, work, len(chosen)))
        training = local_training(work, asked.round, self.device)  # before the charge: a device may not be there
        self.charge(admitted, chosen, asked)
        names = [store.names[i] for i in chosen]
        status = faults(work, names, asked.round) if self.simulated else np.zeros(len(names), np.int8)
        active = np.flatnonzero((status == wire.OK) | (status == wire.LATE))
        batch = UpdateBatch(0)
        if len(active):
            batch = client_updates(
                work,
                parameters,
                [store.client(int(chosen[k])) for k in active],
                training=training,
                randomness=self.randomness([names[k] for k in active], asked),
            )
        arrays = {"clients": chosen, "status": status, **wire.encode_updates(batch)}
        if work.plan.mode == "none" and work.scenario.evaluation.loss_clients:
            arrays["loss"] = self._losses(parameters, chosen, asked.round)
        return node_reply(admitted.run, arrays, status="done", round=asked.round, version=self.version)

    def _losses(self, parameters: dict[str, FloatArray], chosen: IntArray, round_number: int) -> FloatArray:
        work, store = self._admitted().work, self._admitted().clients
        some = chosen[: work.scenario.evaluation.loss_clients]
        seeds = [
            int(public_rng(work.scenario.seed, "loss", round_number, store.names[i]).integers(2**31)) for i in some
        ]
        found = [sample_loss(work, parameters, store.client(int(i)), s) for i, s in zip(some, seeds, strict=True)]
        return np.array(found, dtype=np.float32)

    def charge(self, admitted: Admission, chosen: IntArray, asked: Asked, part: str = "round") -> None:
        """Charge the round (or a part of it), durably, and refuse it where the account then goes over the limit.

        An account that is over a limit as it stands (the policy was lowered) is refused before it is charged. The
        reservation covers as many charges as rounds are planned, whatever their numbers; more are looked at one by
        one, and stay charged when they are refused.
        """
        plan = admitted.work.plan
        if plan.mode == "none":  # recorded as unprotected when it was reserved
            return
        fingerprints = [admitted.fingerprints[i] for i in chosen]
        self._ask_of_accounts("account", admitted, fingerprints, partial(check_account, extra={}))
        beyond = self.ledger.charge(admitted.account_of(part), asked.round, asked.attempt, fingerprints)
        for fingerprint in beyond if self.policy.limits_spend else ():
            refuse(check_account(self.policy, self.ledger, plan, fingerprint, {}))
        if self.policy.max_epsilon_per_period is not None:
            self._ask_of_accounts("lately", admitted, fingerprints, check_lately)

    def _ask_of_accounts(
        self, about: str, admitted: Admission, fingerprints: Sequence[str], check: Callable[..., Refusal | None]
    ) -> None:
        """Raise ``RefusedError`` unless ``check`` has nothing against any of these accounts as they stand."""
        if not self.policy.limits_spend:
            return
        asked = [(self.policy, self.ledger, admitted.work.plan, name) for name in dict.fromkeys(fingerprints)]
        question = [self.bundle.encode(), *(part for account in asked for part in account_question(*account))]
        kept = self._kept(admitted.run) if self.bundle else None
        if kept is not None and kept.said_yes(about, question):
            return
        for account in asked:
            refuse(check(*account))
        if kept is not None:
            kept.note_yes(about, question)

    def randomness(self, names: Sequence[str], asked: Asked) -> list[Randomness]:
        """Fresh randomness from the operating system; reproducible where the run protects nobody anyway."""
        plan, seed = self._admitted().work.plan, self._admitted().work.scenario.seed
        round_number, attempt = asked.round, asked.attempt
        if plan.mode == "none" or plan.test_mode:
            root, attempt = NoiseSource.seeded_for_tests(seed), 0
            seeds = [public_seed(seed, "local sampling", round_number, name) for name in names]
        else:
            root = NoiseSource.from_os()  # every derivation from it is salted by the operating system again
            seeds = root.derive("local sampling").integers(len(names), 2**62).tolist()
        if plan.mode in ("none", "central"):
            return [Randomness(seed) for seed in seeds]
        sources = [root.derive("client", name, round_number, attempt) for name in names]
        return [Randomness(seed, source) for seed, source in zip(seeds, sources, strict=True)]

    def _admitted(self) -> Admission:
        if self.admitted is None:
            raise WireError("no run was prepared on this node")
        return self.admitted
