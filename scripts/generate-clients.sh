#!/usr/bin/env bash
# Makes what is generated under clients/ from openapi.yaml, by the generators pinned in
# scripts/generate-clients.txt and clients/typescript/package.json. clients/generated.sha256 says from
# what it was made and what came out; `contract::the_clients_are_generated_from_this_contract` compares.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=target/clients/generator
scripts/venv.sh $tools scripts/generate-clients.txt
$tools/bin/datamodel-codegen --input openapi.yaml --input-file-type openapi \
  --output clients/python/src/rbees_workerd/contract.py --output-model-type typing.TypedDict \
  --target-python-version 3.11 --use-standard-collections --use-union-operator --use-schema-description \
  --use-field-description --disable-timestamp --enum-field-as-literal all --formatters builtin \
  --custom-file-header '"""Generated from openapi.yaml by `make clients`; not edited by hand."""' 2> target/clients/generator.log
rm -rf target/clients/typescript && mkdir -p target/clients/typescript
cp -r clients/typescript/{package.json,tsconfig.json,src} target/clients/typescript/
# Nothing of a registry gets into the tree: what is installed stays under target/.
npm install --prefix target/clients/typescript --no-package-lock --no-audit --no-fund --silent
target/clients/typescript/node_modules/.bin/openapi-typescript openapi.yaml --root-types \
  --root-types-no-schema-prefix --output clients/typescript/src/contract.ts
cp clients/typescript/src/contract.ts target/clients/typescript/src/
(cd target/clients/typescript && node_modules/.bin/tsc)
sha256sum openapi.yaml scripts/generate-clients.{sh,txt} clients/typescript/{package,tsconfig}.json \
  clients/python/src/rbees_workerd/contract.py clients/typescript/src/contract.ts > clients/generated.sha256
