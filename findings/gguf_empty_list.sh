#!/usr/bin/env bash
# gguf 0.19.0: GGUFWriter.add_array, and with it add_token_merges, drops a key whose value is an empty
# list, without a word; GGUF has arrays of length 0. A tokenizer of bytes is a BPE without merges, and
# llama.cpp (as in xllamacpp 2026.10.11549) then opens no such file: "cannot find tokenizer merges in
# model file". One merge into no token is the way around.
#
# Output:
#   keys read back: GGUF.version, ..., general.architecture, tokenizer.ggml.tokens
#   merges are dropped
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check gguf==0.19.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/model.gguf" <<'PYTHON'
import sys

import gguf

writer = gguf.GGUFWriter(sys.argv[1], "qwen3")
writer.add_token_list(["a", "b"])
writer.add_token_merges([])
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
keys = list(gguf.GGUFReader(sys.argv[1]).fields)
print("keys read back:", ", ".join(keys))
dropped = "tokenizer.ggml.merges" not in keys
print("merges are dropped" if dropped else "merges are there: this finding is out of date")
sys.exit(not dropped or "tokenizer.ggml.tokens" not in keys)
PYTHON
