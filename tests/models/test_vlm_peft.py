import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=r"language_model\..*\.(q_proj|v_proj|down_proj)")


@pytest.fixture
def batch(processor, picture):
    return processor(
        images=[[picture(24, 24, 1)], [picture(24, 24, 2)]],
        text=["<image>", "<image>"],
        targets=["red", "blue"],
        padding_side="right",
    )


def test_adapters_on_the_language_layers_learn_and_are_saved(make_model, batch, tmp_path):
    plain = make_model()
    before = plain(**batch).loss.item()
    model = get_peft_model(make_model(), LORA)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 3 * 2
    assert all("lora" in name and "language_model" in name for name in trained)
    assert model(**batch).loss.item() == pytest.approx(before)

    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.02)
    for _ in range(20):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = model.eval()(**batch).loss.item()
    assert after < before - 0.5

    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path).eval()
    assert again(**batch).loss.item() == pytest.approx(after)
    prompt = {name: batch[name] for name in ("pixel_values", "patch_mask")}
    prompt |= {name: batch[name][:, :9] for name in ("input_ids", "attention_mask")}
    merged = again.merge_and_unload()
    assert torch.equal(
        model.generate(**prompt, max_new_tokens=5, do_sample=False),
        merged.generate(**prompt, max_new_tokens=5, do_sample=False),
    )


def test_adapters_learn_with_gradient_checkpointing(make_model, batch):
    model = make_model().train()
    model.activation_checkpointing_enable()
    model.enable_input_require_grads()
    peft_model = get_peft_model(model, LORA)
    peft_model(**batch).loss.backward()
    assert all(p.grad is not None for p in peft_model.parameters() if p.requires_grad)
