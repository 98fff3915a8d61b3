"""Loads self-contained folders where aag-hf cannot be imported and prints what they compute."""

import json
import sys

import torch

sys.modules["aag_hf"] = None  # type: ignore[assignment]

from transformers import AutoModel, AutoModelForSeq2SeqLM  # noqa: E402

fid_dir, encoder_dir, question = sys.argv[1:]
fid = AutoModelForSeq2SeqLM.from_pretrained(fid_dir, trust_remote_code=True).eval()
assert "aag_hf" not in type(fid).__module__
passages = torch.tensor([[[5, 9, 17], [5, 9, 11]]])
logits = fid(input_ids=passages, decoder_input_ids=torch.tensor([[0, 5]])).logits
encoder = AutoModel.from_pretrained(encoder_dir, trust_remote_code=True)
print(json.dumps({"fid": logits.flatten().tolist(), "encoder": encoder.encode([question]).flatten().tolist()}))
