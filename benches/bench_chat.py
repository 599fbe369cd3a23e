"""Conversations: the time to the first token of a late turn, by the cost of its new tokens."""

from statistics import median
from time import perf_counter

import pytest

from bitnet_lut import Model
from bitnet_lut.runtime.cpu import default_threads

TURNS = 10
SAYING = "Why {}?"


@pytest.fixture(scope="module")
def model(model_file):
    with Model(model_file, threads=default_threads()) as model:
        yield model


@pytest.mark.filterwarnings("ignore:.* has no chat template:UserWarning")
def bench_first_token_of_a_late_turn(benchmark, model, rounds=7):
    """Each turn beside a step of the same ids at the same position, which is what it must cost."""
    chat = model.conversation(system="Be brief.", max_tokens=4, ignore_eos=True)
    for number in range(TURNS - 1):
        _ = chat.say(SAYING.format(number)).text
    kept = chat.count_tokens()
    bare = model.session()
    turns, steps, numbers = [], [], iter(range(TURNS, 10**6))

    def turn():
        start = perf_counter()
        answer = chat.say(SAYING.format(next(numbers)), max_tokens=1)
        _ = answer.text
        turns.append(perf_counter() - start)
        ids = list(chat.turns[-1].prompt)
        reused = answer.result.timings.reused_tokens
        assert kept - 1 <= reused < len(ids)
        chat.undo()
        if bare.position < reused:
            bare.step(ids[bare.position : reused])
        bare.rewind(reused)
        start = perf_counter()
        bare.step(ids[reused:])
        steps.append(perf_counter() - start)
        bare.rewind(min(kept - 1, reused))
        return len(ids) - reused

    new = benchmark.pedantic(turn, rounds=rounds, warmup_rounds=1)
    ratios = [one / other for one, other in zip(turns, steps, strict=True)][-rounds:]
    benchmark.extra_info.update(
        new_tokens=new, kept_tokens=kept, turn_by_step=median(ratios), turns=turns, steps=steps
    )
    print(
        f"turn {TURNS}: {new} new tokens after {kept}, first token after {median(turns):.3f} s, "
        f"{median(ratios):.2f} times the {median(steps):.3f} s of the bare step"
    )
