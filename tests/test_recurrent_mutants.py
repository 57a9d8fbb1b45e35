"""Known wrong recurrent models: each must fail the check that the right one passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from elman.neural.recurrent import RecurrentModel
from test_recurrent import assert_agrees, assert_dropout, assert_initialization, assert_tied, make


class RecurrentDropout(RecurrentModel):
    """Drops the recurrent connection: a mask on h from one step to the next."""

    def _hidden(self, ids, state):
        outputs = []
        embedded = self.dropout(self.embedding(ids))
        for x in embedded:
            hidden, state = self.recurrence(x[None], state if len(state) == 2 else state[0])
            state = state if isinstance(state, tuple) else (state,)
            state = (nn.functional.dropout(state[0], self.config.dropout, self.training), *state[1:])
            outputs.append(hidden[0])
        return self.dropout(torch.stack(outputs)), state


class DropoutInEvaluation(RecurrentModel):
    def _hidden(self, ids, state):
        self.dropout.train()
        return super()._hidden(ids, state)


class ForgetBiasTwice(RecurrentModel):
    @torch.no_grad()
    def initialize(self):
        super().initialize()
        for name, parameter in self.recurrence.named_parameters():
            if name.startswith("bias_hh"):
                parameter.chunk(4)[1].add_(self.config.forget_bias)


class ForgetBiasOnTheWrongGate(RecurrentModel):
    @torch.no_grad()
    def initialize(self):
        super().initialize()
        for name, parameter in self.recurrence.named_parameters():
            if name.startswith("bias_ih"):
                parameter.chunk(4)[1].sub_(self.config.forget_bias)
                parameter.chunk(4)[2].add_(self.config.forget_bias)


class BiasesLeftZero(RecurrentModel):
    @torch.no_grad()
    def initialize(self):
        super().initialize()
        self.output.bias.zero_()


class TargetsOffByOne(RecurrentModel):
    def token_nats(self, ids, state):
        hidden, state = self._hidden(ids[:-1], state)
        return self.output.token_nats(hidden.flatten(0, 1), ids[:-1].flatten()).view(ids[1:].shape), state


class StateOneStepTooFar(RecurrentModel):
    def token_nats(self, ids, state):
        nats, _ = super().token_nats(ids, state)
        return nats, self._hidden(ids, state)[1]


class StateForgotten(RecurrentModel):
    def _hidden(self, ids, state):
        return super()._hidden(ids, self.start(ids.shape[1]))


class TiedByCopy(RecurrentModel):
    def share_weights(self):
        if self.config.tied:
            self.output.weight = nn.Parameter(self.embedding.weight.detach().clone())


class TransposedBatch(RecurrentModel):
    def token_nats(self, ids, state):
        nats, state = super().token_nats(ids, state)
        return nats.T.reshape(nats.shape), state


MUTANTS = [
    (RecurrentDropout, lambda cls: assert_dropout(make(cls, num_layers=1, dropout=0.4))),
    (DropoutInEvaluation, lambda cls: assert_dropout(make(cls, num_layers=1, dropout=0.4))),
    (ForgetBiasTwice, assert_initialization),
    (ForgetBiasOnTheWrongGate, assert_initialization),
    (BiasesLeftZero, assert_initialization),
    (TargetsOffByOne, lambda cls: assert_agrees(make(cls))),
    (StateOneStepTooFar, lambda cls: assert_agrees(make(cls))),
    (StateForgotten, lambda cls: assert_agrees(make(cls))),
    (TransposedBatch, lambda cls: assert_agrees(make(cls))),
    (TiedByCopy, lambda cls: assert_tied(make(cls, tied=True))),
]


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_known_wrong_models_fail(mutant, check) -> None:
    check(RecurrentModel)  # the check itself passes on the right model
    with pytest.raises(AssertionError):
        check(mutant)
