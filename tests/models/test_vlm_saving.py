import json
import subprocess
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from lensmith.models import VisionLanguageModel
from lensmith.models.connectors import PerceiverConnectorConfig
from tests.support.tiny_vlm import tiny_llama

READ_AGAIN = """
import json, sys
import numpy as np
import lensmith.models
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

for folder in sys.argv[1:]:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    picture = np.random.default_rng(7).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    inputs = processor(images=[[picture]], text=["<image>go"])
    tokens = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    classes = [type(AutoConfig.from_pretrained(folder)), type(model), type(processor)]
    print(json.dumps({"tokens": tokens.tolist(), "classes": [kind.__name__ for kind in classes]}))
"""


def test_a_new_process_reads_what_was_saved(make_model, processor, picture, tmp_path):
    processor.tokens_per_picture = 4
    expected = []
    for tied in (True, False):
        model = make_model(
            connector=PerceiverConnectorConfig(latents=4, heads=4, key_heads=2, head_width=8),
            language=tiny_llama(tie_word_embeddings=tied),
        )
        model.save_pretrained(tmp_path / str(tied))
        processor.save_pretrained(tmp_path / str(tied))
        inputs = processor(images=[[picture(28, 20, 7)]], text=["<image>go"])
        expected.append(
            {
                "tokens": model.generate(**inputs, max_new_tokens=8, do_sample=False).tolist(),
                "classes": ["VisionLanguageConfig", "VisionLanguageModel", "VisionLanguageProcessor"],
            }
        )
    command = [sys.executable, "-c", READ_AGAIN, str(tmp_path / "True"), str(tmp_path / "False")]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    assert [json.loads(line) for line in result.stdout.splitlines()[-2:]] == expected


def test_every_weight_comes_back_and_ties_hold(make_model, tmp_path):
    model = make_model(language=tiny_llama(tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight
    assert len(load_file(tmp_path / "model.safetensors")) == len(list(model.named_parameters()))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_weights_that_a_checkpoint_lacks_start_as_new_ones_do(make_model, tmp_path):
    model = make_model(connector=PerceiverConnectorConfig(latents=40, heads=4, key_heads=2, head_width=8))
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lacking = ["connector.latents", "connector.norm.weight", "connector.project.gate.weight"]
    for name in lacking:
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    again, report = VisionLanguageModel.from_pretrained(tmp_path, output_loading_info=True)

    assert sorted(report["missing_keys"]) == lacking
    assert 0.015 < again.connector.latents.std() < 0.025
    assert again.connector.norm.weight.eq(1).all()
    assert again.connector.project.gate.weight.isfinite().all()
    assert again.connector.project.gate.weight.std() > 0.05
    for name, tensor in weights.items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_half_precision_is_kept(make_model, processor, picture, tmp_path):
    make_model().to(torch.bfloat16).save_pretrained(tmp_path)
    again = VisionLanguageModel.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    wide = VisionLanguageModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}
    assert wide.config.language.dtype == torch.float32
    inputs = processor(images=[[picture(28, 20, 7)]], text=["<image>go"])
    difference = again(**inputs).logits.float() - wide(**inputs).logits
    assert difference.abs().max() < 0.5  # bfloat16 has 8 bits; these logits reach 10


def test_the_processor_is_read_again(processor, picture, tmp_path):
    processor.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert again.pictures == processor.pictures
    assert again.chat_template == processor.chat_template
    one, two = ({**p(images=[[picture(28, 20)]], text=["<image>go"])} for p in (processor, again))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
