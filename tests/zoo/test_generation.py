"""`generate`: the greedy continuations of `transformers`, and the laws of drawing."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

import graftax as gx
from common_containers import without_annotation_checks
from common_zoo import ZOO, configurations, fixture
from graftax.zoo import generate

DECODERS = [*configurations("gpt2"), *configurations("llama")]
PROMPTED = [
    name
    for name in DECODERS
    if "input.prompt.input_ids" in safe_open(ZOO / name / "io.safetensors", "np").keys()  # noqa: SIM118
]
PROMPT = [5, 6, 7]


class Record(list):
    """A list that is equal to itself alone, so that it may stand in the structure of a model."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class Scores(eqx.Module):
    """After each token the same scores, whatever came before. Counts how often it is traced."""

    scores: jax.Array
    traces: Record = eqx.field(static=True, default_factory=Record)

    def __call__(self, ids):
        self.traces.append(ids.shape)
        return jnp.tile(self.scores, (ids.shape[0], 1))


class Next(eqx.Module):
    """After token i comes token i + 1, without end."""

    vocabulary: int = eqx.field(static=True)

    def __call__(self, ids):
        return jax.nn.one_hot((ids + 1) % self.vocabulary, self.vocabulary)


def by_hand(model, ids, count):
    """The definition: the whole text so far goes in, the likeliest token is put behind it."""
    run = eqx.filter_jit(model)
    text = list(ids)
    for _ in range(count):
        text.append(int(run(jnp.array(text))[-1].argmax()))
    return text


# --- Greedy ---


@pytest.mark.parametrize("name", PROMPTED)
def test_the_likeliest_tokens_are_those_of_transformers(name):
    found, length = fixture(name), 22
    for kind in ("prompt", "padded_prompt"):
        ids = found.io[f"input.{kind}.input_ids"]
        masks = found.io.get(f"input.{kind}.attention_mask", np.ones_like(ids))
        expected = found.io[f"output.{kind}.new_tokens"]
        for row, mask, tokens in zip(ids, masks, expected, strict=True):
            # One final length for all, so that one program does for all; padding is left out.
            prompt = row[mask.astype(bool)]
            text = generate(found.model, prompt, max_new_tokens=length - len(prompt))
            assert text[: len(prompt)].tolist() == prompt.tolist()
            assert text[len(prompt) :][: len(tokens)].tolist() == tokens.tolist()


def test_there_are_prompts_of_both_families():
    assert {name.partition("/")[0] for name in PROMPTED} == {"gpt2", "llama"}


@pytest.mark.slow
def test_a_reworked_model_generates_as_by_hand():
    model = gx.select(fixture("gpt2/relu").model, "encoder[1]").remove()
    model = gx.select(model, "act").set(jax.nn.silu)
    assert generate(model, PROMPT, max_new_tokens=5).tolist() == by_hand(model, PROMPT, 5)


def test_a_model_in_training_generates_as_in_inference():
    model = fixture("gpt2/base").model
    training = eqx.nn.inference_mode(model, value=False)
    expected = generate(model, PROMPT, max_new_tokens=4)
    assert (generate(training, PROMPT, max_new_tokens=4) == expected).all()


def test_several_prompts_go_through_vmap():
    model = Next(7)
    prompts = jnp.array([[1, 2], [5, 6], [0, 3]])
    found = jax.vmap(functools.partial(generate, model, max_new_tokens=3))(prompts)
    assert found.tolist() == [[1, 2, 3, 4, 5], [5, 6, 0, 1, 2], [0, 3, 4, 5, 6]]


def test_it_can_be_part_of_a_compiled_program():
    found = jax.jit(lambda ids: generate(Next(7), ids, max_new_tokens=3))(jnp.array([4]))
    assert found.tolist() == [4, 5, 6, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int16])
def test_the_dtype_of_the_tokens_stays(dtype):
    text = generate(Next(7), np.array([1], dtype), max_new_tokens=2)
    assert text.dtype == dtype
    assert text.tolist() == [1, 2, 3]


def test_no_new_tokens_are_the_prompt():
    assert generate(Next(7), [1, 5], max_new_tokens=0).tolist() == [1, 5]


# --- Its end ---


def test_the_text_ends_with_the_first_end_token():
    assert generate(Next(9), [1], max_new_tokens=5, eos=4).tolist() == [1, 2, 3, 4, 4, 4]


def test_any_of_several_tokens_may_end_the_text():
    text = generate(Next(9), [1], max_new_tokens=5, eos=[8, 3, 4])
    assert text.tolist() == [1, 2, 3, 3, 3, 3]


def test_an_end_token_in_the_prompt_ends_nothing():
    assert generate(Next(9), [4, 4], max_new_tokens=3, eos=4).tolist() == [4, 4, 5, 6, 7]


def test_texts_side_by_side_end_each_on_its_own():
    ends = functools.partial(generate, Next(9), max_new_tokens=4, eos=4)
    assert jax.vmap(ends)(jnp.array([[2], [0]])).tolist() == [[2, 3, 4, 4, 4], [0, 1, 2, 3, 4]]


# --- One program ---


def test_the_number_of_traces_does_not_depend_on_the_number_of_tokens():
    few, many = Scores(jnp.zeros(5)), Scores(jnp.zeros(5))
    generate(few, PROMPT, max_new_tokens=2)
    generate(many, PROMPT, max_new_tokens=50)
    assert len(few.traces) == len(many.traces) <= 2
    assert set(many.traces) == {(52,)}


def test_another_text_of_the_same_final_length_is_the_same_program():
    model = Scores(jnp.zeros(5))
    generate(model, [1, 2, 3], max_new_tokens=4, temperature=0.5, key=jax.random.key(0))
    before = len(model.traces)
    generate(model, [4, 0, 1], max_new_tokens=4, temperature=0.5, key=jax.random.key(1))
    generate(model, [2], max_new_tokens=6, temperature=0.7, key=jax.random.key(0))
    assert len(model.traces) == before


# --- Drawing ---


def test_a_low_temperature_is_the_likeliest_token():
    model = fixture("llama/gqa").model
    drawn = generate(model, PROMPT, max_new_tokens=8, temperature=1e-4, key=jax.random.key(0))
    assert (drawn == generate(model, PROMPT, max_new_tokens=8)).all()


def test_the_same_key_draws_the_same_text_and_another_key_another():
    draw = functools.partial(generate, Scores(jnp.zeros(50)), PROMPT, max_new_tokens=8)
    one, again, other = (draw(key=jax.random.key(i), temperature=1.0) for i in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_a_longer_text_begins_with_the_shorter():
    draw = functools.partial(generate, Scores(jnp.zeros(50)), PROMPT, key=jax.random.key(3))
    short, long = (draw(max_new_tokens=n, temperature=1.0) for n in (4, 9))
    assert (long[:7] == short).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_their_probabilities_say(temperature):
    scores = np.log(np.array([0.1, 0.6, 0.25, 0.05]))
    model, count = Scores(jnp.asarray(scores)), 20_000
    keys = jax.random.split(jax.random.key(0), count)
    draw = functools.partial(generate, model, [0], max_new_tokens=1, temperature=temperature)
    tokens = jax.vmap(lambda key: draw(key=key))(keys)[:, 1]
    expected = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    # Five standard deviations of a share.
    error = 5 * np.sqrt(expected * (1 - expected) / count)
    assert (abs(np.bincount(tokens, minlength=4) / count - expected) < error).all()


def test_an_end_token_that_is_drawn_ends_the_text():
    draw = functools.partial(
        generate, Scores(jnp.zeros(4)), [0], max_new_tokens=20, temperature=1.0
    )
    text = draw(key=jax.random.key(0), eos=2).tolist()
    end = text.index(2)
    assert 0 < end < 20
    assert set(text[end:]) == {2}


# --- Errors ---


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], r"integers of shape \(t,\) with t > 0; got float32 of shape \(0,\)"),
        (np.ones((2, 3), int), r"shape \(2, 3\). For several prompts, use jax.vmap"),
        (np.ones(3), r"got float32 of shape \(3,\)"),
    ],
)
def test_what_is_no_prompt_is_refused(ids, message):
    with without_annotation_checks(), pytest.raises(ValueError, match=message):
        generate(Next(5), ids, max_new_tokens=2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must not be negative; got -1"),
        ({"temperature": -0.5}, "temperature must not be negative; got -0.5"),
        ({"temperature": 0.5}, r"temperature=0.5 draws at random: give key=jax.random.key"),
    ],
)
def test_values_that_mean_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        generate(Next(5), PROMPT, **{"max_new_tokens": 2, **given})


def test_more_tokens_than_positions_are_refused_before_anything_runs():
    model = fixture("gpt2/base").model
    message = (
        "A prompt of 30 tokens and max_new_tokens=4 need 33 positions; 'embeddings.position' has 32"
    )
    with pytest.raises(ValueError, match=message):
        generate(model, [1] * 30, max_new_tokens=4)
    with pytest.raises(ValueError, match="A prompt of 33 tokens and max_new_tokens=0 need 33"):
        generate(model, [1] * 33, max_new_tokens=0)


def test_the_last_token_needs_no_position():
    assert generate(fixture("gpt2/base").model, [1] * 30, max_new_tokens=3).shape == (33,)


def test_a_model_that_looks_ahead_is_refused():
    message = "'encoder.0.attention.op.attend' sees what comes after a token"
    with pytest.raises(ValueError, match=message):
        generate(fixture("bert/masked_lm").model, PROMPT, max_new_tokens=2)


@pytest.mark.parametrize(
    "model", [fixture("gpt2/model").model, fixture("llama/gqa").model[:"head"]]
)
def test_a_model_without_a_head_is_refused(model):
    with pytest.raises(ValueError, match=r"gives shape \(4, 24\), where scores of shape \(4, 67\)"):
        generate(model, PROMPT, max_new_tokens=2)


def test_a_model_that_gives_one_answer_for_all_tokens_is_refused():
    model = gx.Chain(lambda ids: jnp.zeros(7))
    with pytest.raises(ValueError, match=r"gives shape \(7,\), where scores of shape \(4, vocab"):
        generate(model, PROMPT, max_new_tokens=2)


# --- Ids and numbers that mean nothing ---


SMALL = {"vocabulary": 9, "width": 8, "depth": 1, "heads": 2, "inner": 16}


@pytest.mark.parametrize("ids", [[1, 9], [-1, 2], np.array([1, 2**32 + 1])])
def test_ids_that_the_model_does_not_know_are_refused_by_number(ids):
    model = gx.zoo.llama(**SMALL, key=jax.random.key(0))
    unknown = next(int(i) for i in ids if not 0 <= i < 9)
    with pytest.raises(
        ValueError, match=rf"ids {unknown}; 'embeddings.word' has vectors for 0 to 8"
    ):
        generate(model, ids, max_new_tokens=2)


def test_ids_that_are_being_traced_and_have_no_vector_are_an_error_when_it_runs():
    model = gx.zoo.llama(**SMALL, key=jax.random.key(0))
    run = jax.vmap(lambda ids: generate(model, ids, max_new_tokens=2))
    assert run(jnp.array([[1, 8], [0, 3]])).shape == (2, 4)
    with pytest.raises(RuntimeError, match="The model gave NaN as scores"):
        jax.block_until_ready(run(jnp.array([[1, 8], [9, 3]])))


def test_a_dtype_that_cannot_hold_the_tokens_is_refused():
    assert generate(Next(256), np.array([255], np.uint8), max_new_tokens=1).tolist() == [255, 0]
    with pytest.raises(ValueError, match="has 257 tokens, and the prompt is of uint8"):
        generate(Next(257), np.array([255], np.uint8), max_new_tokens=1)


@pytest.mark.parametrize("eos", [-1, [3, -1], 2**31, 1.5, [[0.0]]])
def test_an_end_that_is_no_token_is_refused(eos):
    with (
        without_annotation_checks(),
        pytest.raises(ValueError, match="eos must be the id of a token"),
    ):
        generate(Next(7), [1], max_new_tokens=2, eos=eos)


def test_an_end_token_is_not_cut_to_the_dtype_of_the_prompt():
    # 258 is 2 in eight bits.
    text = generate(Next(7), np.array([1], np.uint8), max_new_tokens=3, eos=[258])
    assert text.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "rotary",
    [
        gx.zoo.DynamicRotary(2.0, factor=8.0, length=3),
        gx.zoo.LongRotary(short=(1.0, 1.0), long=(4.0, 9.0), length=6),
    ],
    ids=["dynamic", "long"],
)
def test_a_rotation_by_the_length_goes_by_that_of_the_text_so_far(rotary):
    sizes = SMALL | {"vocabulary": 40}
    for seed in range(3):
        model = gx.zoo.llama(**sizes, rotary=rotary, key=jax.random.key(seed))
        # Larger than at first, so that the scores depend on where a token stands.
        model = gx.select(model, "{query,key}", eqx.nn.Linear).apply(
            lambda layer: gx.update(layer, weight=20 * layer.weight)
        )
        found = generate(model, [1, 2, 3], max_new_tokens=6)
        assert found.tolist() == by_hand(model, [1, 2, 3], 6)
