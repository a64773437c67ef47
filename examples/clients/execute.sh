#!/usr/bin/env bash
# Asks a worker with curl and jq: tokens on stdout as they come, narration on stderr. A connection that
# is lost is made again after the last frame seen. Usage: execute.sh 'PROMPT' [MAX_TOKENS]
set -euo pipefail
worker=${WORKER_URL:-http://127.0.0.1:8080}
job="curl-$$-$RANDOM"
last="" ended=""
headers=(-H 'content-type: application/json')
[ -z "${WORKER_TOKEN:-}" ] || headers+=(-H "authorization: Bearer $WORKER_TOKEN")

# Reads a stream: `data:` is kept until the empty line that ends a frame, so that half a frame is none.
read_stream() {
  local data="" id="" line
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      data:*) data=${line#data: } ;;
      id:*) id=${line#id: } ;;
      \{*) echo "$line" >&2 ;; # no stream: the worker says why it refuses
      "")
        [ -n "$data" ] || continue
        last=$id
        case $(jq -r .type <<<"$data") in
          token) jq -j .t <<<"$data" ;;
          narration) jq -r '"\(.actor): \(.human // "withheld")"' <<<"$data" >&2 ;;
          end) ended=yes ;;
          error) jq -r '"\(.code): \(.message)"' <<<"$data" >&2; exit 1 ;;
        esac
        data="" ;;
    esac
  done
}

body=$(jq -n --arg prompt "$1" --arg job "$job" --argjson most "${2:-64}" \
  '{prompt: $prompt, max_tokens: $most, temperature: 0, job_id: $job, on_disconnect: "continue"}')
read_stream < <(curl -sSN --fail-with-body "${headers[@]}" -d "$body" "$worker/execute" || true)
[ -n "$last" ] || { echo "the worker did not take the request" >&2; exit 1; }
for _ in 1 2 3 4 5 6 7 8 9 10; do
  [ -z "$ended" ] || break
  sleep 1
  read_stream < <(curl -sSN "${headers[@]}" -H "last-event-id: $last" "$worker/jobs/$job/events" || true)
done
echo
[ -n "$ended" ]
