#!/usr/bin/env bash
# One would guess that a client of openapi-python-client type-checks in the same way with and without its packaging files:
# `--meta none` only leaves out README and pyproject.toml.
# Seen: the package with pyproject.toml passes `mypy --strict`; with `--meta none` it has 12 errors in client.py. At its end
# the generator runs `ruff check --fix-only` in the new folder. The pyproject.toml that it did not write chose ruff's rules;
# without it ruff 0.17 uses its own list, which turns `*args: Any` of `__exit__` into `*args: object`.
# Why it matters here: docs/generate-a-client.md says which settings to take, and the output is used unedited.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "openapi-python-client==0.29.1" "ruff==0.17.6" "mypy==2.4.1" "httpx==0.28.1"
export PATH="$folder/venv/bin:$PATH"

cat > openapi.yaml <<'YAML'
openapi: 3.1.0
info: {title: Orders, version: 1.0.0}
paths:
  /orders:
    get:
      operationId: readOrders
      responses:
        "200":
          description: The orders.
          content: {application/json: {schema: {type: array, items: {type: string}}}}
YAML

openapi-python-client generate --path openapi.yaml --output-path with > /dev/null
openapi-python-client generate --path openapi.yaml --output-path without --meta none > /dev/null
checked() { mypy --strict "$1" | tail -1 || true; }
with=$(checked with/orders_client)
without=$(checked without)
echo "with pyproject.toml: $with"
echo "with --meta none: $without"
[[ $with == Success* && $without == "Found 12 errors"* ]]
