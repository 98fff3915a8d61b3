"""One model called from many threads at once answers each call with the adapter of its own question."""

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import torch
from test_scope import CALLS, expected, fresh_model

FULL = os.environ.get("AAG_RELIABILITY") == "full"
THREADS, CALLS_IN_ALL = 8, 2500 if FULL else 40


def test_each_call_has_its_own_answer_and_the_weights_stay(request):
    model = fresh_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw = random.Random(7)
    asked = [(draw.choice(list(CALLS)), draw.randrange(6)) for _ in range(CALLS_IN_ALL)]
    answers = {one: expected(*one, "default") for one in set(asked)}
    # So that a thread loses its turn in the middle of a layer.
    interval = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    sys.setswitchinterval(1e-5)
    with ThreadPoolExecutor(THREADS) as pool:
        given = list(pool.map(lambda one: CALLS[one[0]](model, one[1]), asked))
    wrong = [one for one, answer in zip(asked, given) if not torch.allclose(answer.double(), answers[one].double())]
    assert not wrong, f"{len(wrong)} of {len(asked)} answers are another question's: {wrong[:3]}"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
