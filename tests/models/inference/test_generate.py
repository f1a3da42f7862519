import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.endpoint import Finish
from lensmith.core.errors import InputError
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.inference.generate import TokenStep, _pieces, generate_batch, generate_stream, generate_tokens
from lensmith.models.inference.sampling import GenerateSettings
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, tiny_llama

GREEDY = GenerateSettings(max_new_tokens=16)
SAMPLED = GenerateSettings(max_new_tokens=16, temperature=0.8, top_p=0.95, seed=11, num_samples=3)


@pytest.fixture
def samples(picture):
    return [
        ([picture(40, 24, 1)], "<image>what?"),
        ([picture(20, 30, 2), picture(64, 8, 3)], "<image>and <image> compare"),
        ([], "no picture at all"),
    ]


def complete(model, processor, samples, settings):
    return generate_batch(model, processor, [images for images, _ in samples], [text for _, text in samples], settings)


def test_greedy_is_what_transformers_generates(model, processor, samples):
    completions = complete(model, processor, samples, GREEDY)
    for (images, text), [completion] in zip(samples, completions, strict=True):
        inputs = processor(images=[images], text=[text])
        tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[
            0, inputs["input_ids"].shape[1] :
        ].tolist()
        if completion.finish is Finish.STOP:
            assert tokens.pop() == 2
        assert list(completion.tokens) == tokens


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_says_what_each_says_alone(make_model, processor, samples, settings, seed):
    model = make_model(seed=seed)
    alone = [complete(model, processor, [sample], settings)[0] for sample in samples]
    assert complete(model, processor, samples, settings) == alone
    assert len({completion.text for row in alone for completion in row}) == len(samples) * settings.num_samples


def test_rows_that_are_finished_leave_the_others_alone(make_model, processor, samples):
    model = make_model()
    with torch.no_grad():
        model.get_output_embeddings().weight[2] *= 3  # makes the end of text likely
    settings = GenerateSettings(max_new_tokens=40, temperature=1.0, num_samples=8, seed=4)
    completions = [c for row in complete(model, processor, samples, settings) for c in row]
    lengths = {len(completion.tokens) for completion in completions if completion.finish is Finish.STOP}
    assert len(lengths) > 3
    alone = [c for sample in samples for c in complete(model, processor, [sample], settings)[0]]
    assert completions == alone
    assert all(2 not in completion.tokens for completion in completions)


def test_the_seed_decides(model, processor, samples):
    one = complete(model, processor, samples, SAMPLED)
    torch.manual_seed(123)
    assert complete(model, processor, samples, SAMPLED) == one
    other = GenerateSettings(max_new_tokens=16, temperature=0.8, top_p=0.95, seed=12, num_samples=3)
    assert complete(model, processor, samples, other) != one


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_completion_in_pieces(model, processor, samples, seed):
    settings = GenerateSettings(max_new_tokens=30, temperature=1.5, seed=seed)
    for images, text in samples:
        pieces = list(generate_stream(model, processor, images, text, settings))
        assert all(pieces)
        assert "".join(pieces) == complete(model, processor, [(images, text)], settings)[0][0].text


@given(text=st.text(max_size=12), cut=st.integers(0, 3))
def test_pieces_are_whole_characters(tokenizer, text, cut):
    class Reader:
        pass

    reader = Reader()
    reader.tokenizer = tokenizer
    ids = tokenizer(text)["input_ids"]
    ids = ids[: len(ids) - cut]  # may end inside a character
    steps = (TokenStep((0,), (token,)) for token in ids)
    pieces = list(_pieces(reader, steps, frozenset({2})))
    expected = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == expected
    assert all("\ufffd" not in piece for piece in pieces[:-1]) or "\ufffd" in text


def test_a_stream_that_is_closed_stops_the_work(model, processor, samples):
    calls = []
    model.generation_config.eos_token_id = None
    model.language_model.register_forward_hook(lambda *_: calls.append(1))
    stream = generate_stream(model, processor, *samples[0], GenerateSettings(max_new_tokens=50))
    next(stream)
    made = len(calls)
    stream.close()
    assert len(calls) == made < 10
    assert not torch.is_inference_mode_enabled()


def test_an_error_inside_reaches_the_caller(model, processor, samples):
    def fail(*_):
        raise RuntimeError("out of memory")

    model.generation_config.eos_token_id = None
    stream = generate_stream(model, processor, *samples[0], GREEDY)
    next(stream)
    model.language_model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream)


def test_bad_input_is_refused_at_once(model, processor, samples):
    with pytest.raises(InputError, match="differ in number"):
        generate_stream(model, processor, [], "<image>")
    with pytest.raises(InputError, match="one sample"):
        generate_stream(model, processor, *samples[0], SAMPLED)


def test_every_step_is_heard_and_can_stop_the_work(model, processor, samples):
    steps = []
    model.generation_config.eos_token_id = None  # so that no row ends early

    def stop_after_three(step):
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_batch(model, processor, [samples[0][0]], [samples[0][1]], SAMPLED, on_step=stop_after_three)
    assert [len(step.tokens) for step in steps] == [3, 3, 3]


def test_the_prompt_is_read_once_for_all_samples_and_the_last_token_never(model, processor, samples):
    shapes = []
    model.generation_config.eos_token_id = None
    model.language_model.register_forward_hook(
        lambda _module, _arguments, named, _result: shapes.append(tuple(named["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    inputs = processor(images=[samples[0][0]], text=[samples[0][1]])
    settings = GenerateSettings(max_new_tokens=4, temperature=0.5, num_samples=3)
    list(generate_tokens(model, inputs, settings))
    assert shapes == [tuple(inputs["input_ids"].shape), (3, 1), (3, 1), (3, 1)]


def test_a_text_ends_at_the_length_of_the_model(make_model, processor, picture):
    model = make_model(language=tiny_llama(max_position_embeddings=20))
    [[completion]] = generate_batch(model, processor, [[picture(32, 32)]], ["<image>"], GREEDY)
    assert len(completion.tokens) == 4
    assert completion.finish is Finish.LENGTH
    with pytest.raises(InputError, match="longer than the model can read"):
        generate_batch(model, processor, [[picture(40, 32)]], ["<image>"], GREEDY)


def test_the_placeholder_is_never_written(model, processor, samples):
    with torch.no_grad():
        model.get_output_embeddings().weight[IMAGE_TOKEN_ID] *= 50
    for row in complete(model, processor, samples, SAMPLED):
        assert all(IMAGE_TOKEN_ID not in completion.tokens for completion in row)


def test_a_model_in_training_is_asked_without_dropout_and_left_in_training(make_model, processor, samples):
    model = make_model(language=tiny_llama(attention_dropout=0.5))
    expected = complete(model, processor, samples, GREEDY)
    model.train()
    assert complete(model, processor, samples, GREEDY) == expected
    assert model.training
    assert model.language_model.training


def test_a_connector_with_latents_generates_too(make_model, processor, samples):
    model = make_model(connector=PerceiverConnectorConfig(latents=4, heads=4, key_heads=2, head_width=8))
    processor.tokens_per_picture = 4
    alone = [complete(model, processor, [sample], SAMPLED)[0] for sample in samples]
    assert complete(model, processor, samples, SAMPLED) == alone
